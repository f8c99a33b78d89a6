package faults

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tare/internal/test/images"
)

// TestKilledClients kills the command line client in the middle of run, exec, attach, logs, pull, load, build and cp.
func TestKilledClients(t *testing.T) {
	e := start(t)
	e.Tools()
	b := breakable(t, e)
	img, err := images.Generate(images.Options{Layers: 3, FilesPerLayer: 20, FileSize: 200 << 10, Ratio: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Push("http://"+e.Registry(), "big", "latest"); err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(e.Dir, "layout")
	if err := img.WriteLayout(layout, "big:latest"); err != nil {
		t.Fatal(err)
	}
	e.Docker("run", "-d", "--name", "bg", "tools", "sleep", "1000")
	clean := footprint(e)
	running := func(command string) func() bool {
		return func() bool {
			for _, l := range processes(e) {
				if strings.HasPrefix(l, "process "+command) {
					return true
				}
			}
			return false
		}
	}

	// What reads from the client ends with it.
	for _, args := range [][]string{{"run", "--rm", "-i", "tools", "cat"}, {"exec", "-i", "bg", "cat"}} {
		in, w := io.Pipe()
		c := begin(e, in, args...)
		e.Until("cat", running("cat"))
		c.Process.Kill()
		w.Close()
		c.Wait()
		nothingNew(e, "a killed docker "+strings.Join(args, " "), clean)
	}
	// What does not, goes on, as with Docker, and can be reached.
	c := begin(e, nil, "run", "--rm", "--name", "fg", "tools", "tick", "0", "10ms")
	e.Until("a line", func() bool { return strings.Contains(e.Try(nil, "logs", "fg").Stdout, "tick 1\n") })
	for _, args := range [][]string{{"logs", "-f", "fg"}, {"attach", "--no-stdin", "fg"}, {"stats", "fg"}, {"wait", "fg"}, {"events"}} {
		c := begin(e, nil, args...)
		e.Docker("exec", "bg", "sleep", "0.05")
		c.Process.Kill()
		c.Wait()
	}
	c.Process.Kill()
	c.Wait()
	n := strings.Count(e.Docker("logs", "fg"), "\n")
	e.Until("further lines", func() bool { return strings.Count(e.Docker("logs", "fg"), "\n") > n+10 })
	e.Docker("stop", "-t", "0", "fg")
	nothingNew(e, "a killed docker run", clean)

	// A pull that waits for its bytes.
	waits := make(chan struct{}, 100)
	b.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, img.Layers[1].Digest.String()) {
			w.Header().Set("Content-Length", "100000")
			w.Write(make([]byte, 1000))
			http.NewResponseController(w).Flush()
			waits <- struct{}{}
			<-r.Context().Done()
			return
		}
		next.ServeHTTP(w, r)
	})
	c = begin(e, nil, "pull", b.host+"/big")
	<-waits
	c.Process.Kill()
	c.Wait()
	b.set(nil)
	e.Docker("pull", "-q", b.host+"/big") // takes up what there is
	e.Docker("rmi", b.host+"/big")
	nothingNew(e, "a killed docker pull", clean)

	// A build in the middle of a step.
	dir := filepath.Join(e.Dir, "context")
	os.MkdirAll(dir, 0o755)
	os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM tools\nRUN write /one 1\nRUN sleep 999\n"), 0o644)
	c = begin(e, nil, "build", dir)
	e.Until("the step", running("sleep 999"))
	c.Process.Kill()
	c.Wait()
	e.Until("the step's end", func() bool { return !running("sleep 999")() })
	e.Docker("builder", "prune", "-af")
	nothingNew(e, "a killed docker build", clean)

	// Bodies that end early: a load, a build's context and a copy.
	for _, args := range [][]string{{"load"}, {"build", "-"}, {"cp", "-", "bg:/tmp"}, {"import", "-"}} {
		in, w := io.Pipe()
		c := begin(e, in, args...)
		data := contextTar(map[string]string{"file": strings.Repeat("x", 1<<20)}).Bytes()
		w.Write(data[:512<<10])
		c.Process.Kill()
		w.Close()
		c.Wait()
		e.Docker("exec", "bg", "rm", "/tmp/file")
		nothingNew(e, "a killed docker "+strings.Join(args, " "), clean)
	}
	alive(e, "tools")
}
