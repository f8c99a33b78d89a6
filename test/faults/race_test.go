package faults

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/moby/moby/client"

	"tare/internal/test/harness"
	"tare/internal/test/images"
)

// together runs f n times at once.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	wg.Wait()
}

// post sends a request and tells what went wrong.
func post(e *harness.Engine, method, path string, body io.Reader) error {
	contentType := "application/json"
	if strings.HasPrefix(path, "/build") {
		contentType = "application/x-tar"
	}
	a, err := ask(e, method, path, contentType, body)
	switch {
	case err != nil:
		return err
	case a.status >= 400:
		return fmt.Errorf("%d %s", a.status, a.body)
	case strings.Contains(a.body, `"errorDetail"`):
		return errors.New(a.body)
	}
	return nil
}

// TestClientsAtOnce lets clients want the same thing at the same time.
func TestClientsAtOnce(t *testing.T) {
	e := start(t)
	e.Tools()
	r := e.Registry()
	clean := footprint(e)

	// One name has one winner.
	var won atomic.Int32
	together(8, func(int) {
		err := post(e, "POST", "/containers/create?name=one", strings.NewReader(`{"Image":"tools","Cmd":["sleep","1000"],"Volumes":{"/v":{}}}`))
		if err == nil {
			won.Add(1)
		} else if !strings.Contains(err.Error(), "409") || !strings.Contains(err.Error(), `name \"/one\" is already in use`) {
			t.Errorf("create: %v", err)
		}
	})
	if won.Load() != 1 || strings.Count(e.Docker("ps", "-aq"), "\n") != 0 {
		t.Errorf("%d of 8 creates of one name won", won.Load())
	}

	// Starts, stops, kills, restarts and removals of one container: each answers with sense, none hangs, all ends gone.
	for round := range 6 {
		name := fmt.Sprintf("round%d", round)
		e.Docker("create", "--name", name, "-p", "127.0.0.1::80", "--stop-timeout", "0", "tools", "sleep", "1000")
		acts := []string{"start", "stop?t=0", "start", "restart?t=0", "kill", "pause", "unpause", "wait?condition=removed"}
		var wg sync.WaitGroup
		wg.Go(func() {
			together(len(acts)*2, func(i int) {
				act := acts[i%len(acts)]
				if err := post(e, "POST", "/containers/"+name+"/"+act, nil); err != nil && !oneOf(err.Error(), "404|409|304") && !strings.Contains(err.Error(), "marked for removal") {
					t.Errorf("%s: %v", act, err)
				}
			})
		})
		together(4, func(int) {
			if err := post(e, "DELETE", "/containers/"+name+"?force=1", nil); err != nil && !oneOf(err.Error(), "404|409") {
				t.Errorf("rm -f: %v", err)
			}
		})
		must(e, "DELETE", "/containers/"+name+"?force=1", "", nil) // a wait may have come before
		wg.Wait()
	}
	e.Docker("rm", "-f", "-v", "one")
	nothingNew(e, "clients at one container", clean)

	// The same image eight times, while others use what it shares.
	img, err := images.Generate(images.Options{Layers: 4, FilesPerLayer: 30, FileSize: 60 << 10})
	if err != nil {
		t.Fatal(err)
	}
	blobs := &atomic.Int32{}
	b := breakable(t, e)
	b.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == "GET" && strings.Contains(r.URL.Path, "/blobs/") {
			blobs.Add(1)
		}
		next.ServeHTTP(w, r)
	})
	if err := img.Push("http://"+r, "big", "latest"); err != nil {
		t.Fatal(err)
	}
	pull := "/images/create?tag=latest&fromImage=" + url.QueryEscape(b.host+"/big")
	together(8, func(int) {
		if err := post(e, "POST", pull, nil); err != nil {
			t.Errorf("pull: %v", err)
		}
	})
	if n := blobs.Load(); n > int32(len(img.Layers)+8) { // a layer once; a config is small
		t.Errorf("eight pulls fetched %d blobs", n)
	}
	e.Docker("rmi", b.host+"/big")
	nothingNew(e, "eight pulls", clean)

	// The same Dockerfile six times: each step is done once.
	dockerfile := "FROM tools\nRUN write /one 1\nCOPY file /two\nRUN sleep 0.1 && write /three 3\n"
	together(6, func(i int) {
		body := contextTar(map[string]string{"Dockerfile": dockerfile, "file": "same"})
		if err := post(e, "POST", fmt.Sprintf("/build?t=built:%d", i), body); err != nil {
			t.Errorf("build: %v", err)
		}
	})
	ids := map[string]bool{}
	for i := range 6 {
		id := e.Docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", fmt.Sprintf("built:%d", i))
		ids[id] = true
	}
	if len(ids) != 1 {
		t.Errorf("six builds of one Dockerfile made %d stacks of layers: %v", len(ids), ids)
	}
	for i := range 6 {
		e.Docker("rmi", "-f", fmt.Sprintf("built:%d", i))
	}
	e.Docker("builder", "prune", "-af")
	nothingNew(e, "six builds", clean)
	alive(e, "tools")
}

// TestPruneBesideWork prunes and removes all the time, while containers run, images arrive that share layers, and builds go on.
// Whatever is in use stays: every pull, build and container succeeds and has all its files.
func TestPruneBesideWork(t *testing.T) {
	e := start(t)
	e.Tools()
	r := e.Registry()
	clean := footprint(e)
	// Two images, of which the second has the first's layers and one of its own.
	small, err := images.Generate(images.Options{Layers: 3, FilesPerLayer: 20, FileSize: 30 << 10})
	if err != nil {
		t.Fatal(err)
	}
	large, err := images.Generate(images.Options{Layers: 3, FilesPerLayer: 20, FileSize: 30 << 10, Files: map[string][]byte{"extra": make([]byte, 1<<20)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, img := range map[string]*images.Image{"small": small, "large": large} {
		if err := img.Push("http://"+r, name, "latest"); err != nil {
			t.Fatal(err)
		}
	}
	e.Docker("run", "-d", "--name", "runs", "tools", "tick", "0", "10ms")
	const rounds = 12
	stop := make(chan struct{})
	var pruners, workers sync.WaitGroup
	for _, path := range []string{"POST /images/prune?filters=" + url.QueryEscape(`{"dangling":["false"]}`), "POST /build/prune?all=1", "POST /containers/prune?filters=" + url.QueryEscape(`{"until":["10m"]}`), "POST /volumes/prune?filters=" + url.QueryEscape(`{"all":["true"]}`), "POST /networks/prune", "DELETE /images/" + r + "/small?force=1", "GET /system/df"} {
		method, path, _ := strings.Cut(path, " ")
		pruners.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := post(e, method, path, nil); err != nil && !oneOf(err.Error(), "404|409") {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
	}
	for _, name := range []string{"small", "large"} {
		workers.Go(func() {
			for range rounds {
				if err := post(e, "POST", "/images/create?tag=latest&fromImage="+url.QueryEscape(r+"/"+name), nil); err != nil {
					t.Errorf("pull %s: %v", name, err)
				}
			}
		})
	}
	workers.Go(func() {
		for i := range rounds / 2 {
			body := contextTar(map[string]string{"Dockerfile": fmt.Sprintf("FROM %s/large\nENV I=%d\nCOPY true /true\nRUN [\"/true\"]\n", r, i%3), "true": string(harness.Toolbox(t))})
			if err := post(e, "POST", fmt.Sprintf("/build?t=built%d", i), body); err != nil {
				t.Errorf("build: %v", err)
			}
		}
	})
	workers.Go(func() {
		for range rounds {
			if got := e.Try(nil, "run", "--rm", "-v", "/data", "tools", "cat", "/etc/passwd"); got.Code != 0 || !strings.Contains(got.Stdout, "worker") {
				t.Errorf("run: %+v", got)
			}
		}
	})
	workers.Wait()
	close(stop)
	pruners.Wait()
	if s := state(e, "runs"); s.Status != "running" {
		t.Errorf("the container that ran: %+v", s)
	}
	if got := e.Docker("exec", "runs", "cat", "/etc/passwd"); !strings.Contains(got, "worker") {
		t.Errorf("the files of the container that ran: %q", got)
	}
	// What is there now is whole.
	for _, name := range []string{"small", "large"} {
		e.Docker("pull", "-q", r+"/"+name)
		if a := must(e, "GET", "/images/"+r+"/"+name+"/get", "", nil); a.status != 200 || len(a.body) < 100<<10 {
			t.Errorf("save of %s: %d, %d bytes", name, a.status, len(a.body))
		}
		must(e, "DELETE", "/images/"+r+"/"+name+"?force=1", "", nil)
	}
	// An image whose container runs is not removed, by force neither.
	id := e.Docker("image", "inspect", "-f", "{{.Id}}", "tools")
	if got := e.Try(nil, "rmi", "-f", id); got.Code != 1 || !strings.Contains(got.Stderr, "(cannot be forced) - image is being used by running container") {
		t.Errorf("rmi -f of a running container's image: %+v", got)
	}
	e.Kill() // also by the next engine
	relaunch(e)
	if got := e.Try(nil, "rmi", "-f", id); got.Code != 1 || !strings.Contains(got.Stderr, "(cannot be forced) - image is being used by running container") {
		t.Errorf("rmi -f of a running container's image, after a restart: %+v", got)
	}
	e.Docker("stop", "-t", "0", "runs")
	if got := e.Try(nil, "rmi", id); got.Code != 1 || !strings.Contains(got.Stderr, "must be forced") {
		t.Errorf("rmi of a stopped container's image: %+v", got)
	}
	e.Docker("start", "runs")
	if _, err := e.Client.ContainerRemove(limited(t), "runs", client.ContainerRemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	for i := range rounds / 2 {
		must(e, "DELETE", fmt.Sprintf("/images/built%d?force=1", i), "", nil)
	}
	must(e, "POST", "/build/prune?all=1", "", nil)
	alive(e, "")
	if got := e.Try(nil, "image", "inspect", "tools"); got.Code == 0 {
		nothingNew(e, "prunes beside work", clean)
	} else {
		t.Errorf("prune removed the image of a container that ran: %+v", got)
	}
}
