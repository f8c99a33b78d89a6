// Package build holds what Dockerfiles build by what Debian's docker (20.10, the classic builder) builds from them: for each
// of the cases, testdata/<name>.golden has the files of the image, its config, or the error, as docker gave them. Where
// Tare means to differ, testdata/<name>.tare has what it gives, and the case the reason; errors may differ without one,
// as they show the Dockerfile's line and are in the words of BuildKit's parser.
//
// To accept a difference, and to record the peer's anew:
//
//	go test ./test/build -update
//	TARE_BUILD_PEER=unix:///var/run/docker.sock go test ./test/build -update
package build

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

var update = flag.Bool("update", false, "write the golden files, of the peer at TARE_BUILD_PEER")

// dockerCmd runs the docker command line and returns output, standard error and exit code.
type dockerCmd func(stdin io.Reader, args ...string) harness.Result

func TestLikeDocker(t *testing.T) {
	docker, asked := peer(), *update && os.Getenv("TARE_BUILD_PEER") != ""
	if !asked {
		docker = harness.Start(t).Try
	}
	base(t, docker)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := c.build(t, docker)
			file := filepath.Join("testdata", c.name+".golden")
			if asked {
				write(t, file, got)
				return
			}
			dockers := read(t, file)
			own := strings.TrimSuffix(file, ".golden") + ".tare"
			if *update {
				if os.Remove(own); got != dockers {
					write(t, own, got)
				}
			}
			if _, err := os.Stat(own); err != nil {
				if got != dockers {
					t.Errorf("got\n%s\ndocker has\n%s", got, dockers)
				}
				if c.differs != "" {
					t.Error("does not differ from docker, as it should: " + c.differs)
				}
				return
			}
			if want := read(t, own); got != want {
				t.Errorf("got\n%s\nwant\n%s\ndocker has\n%s", got, want, dockers)
			}
			if c.differs == "" && !c.fails {
				t.Errorf("%s is there, but no reason for it", own)
			}
		})
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRebuildDoesNothing checks that a second build of every case takes each step from the cache and gives the same image.
func TestRebuildDoesNothing(t *testing.T) {
	e := harness.Start(t)
	base(t, e.Try)
	type built struct{ id, dir string }
	ids := map[string]built{}
	for _, c := range cases {
		if c.fails {
			continue
		}
		dir := c.folder(t)
		c.run(t, e.Try, dir)
		ids[c.name] = built{e.Docker("image", "inspect", "-f", "{{.Id}}", "case"), dir}
	}
	e.Restart(true)
	for _, c := range cases {
		if c.fails {
			continue
		}
		out := c.run(t, e.Try, ids[c.name].dir).Stdout
		if strings.Contains(out, "Running in") {
			t.Errorf("%s: the rebuild ran a step\n%s", c.name, out)
		}
		if id := e.Docker("image", "inspect", "-f", "{{.Id}}", "case"); id != ids[c.name].id {
			t.Errorf("%s: the rebuild made another image\n%s", c.name, out)
		}
	}
}

func peer() dockerCmd {
	return func(stdin io.Reader, args ...string) harness.Result {
		cmd := exec.Command("docker", args...)
		cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0", "DOCKER_HOST="+os.Getenv("TARE_BUILD_PEER"))
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			panic(err)
		}
		return harness.Result{Stdout: out.String(), Stderr: errs.String(), Code: cmd.ProcessState.ExitCode()}
	}
}

// base imports base:1, which has busybox and a few users.
func base(t *testing.T, docker dockerCmd) {
	t.Helper()
	box, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("these tests need busybox-static: test/deps.sh installs it")
	}
	text, err := os.ReadFile(box)
	if err != nil {
		t.Fatal(err)
	}
	applets, err := exec.Command(box, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	for _, d := range []string{"bin", "etc", "root", "home", "home/joe"} {
		h := tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o755}
		if d == "home/joe" {
			h.Uid, h.Gid = 1000, 1000
		}
		add(h, "")
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp", Mode: 0o1777}, "")
	add(tar.Header{Name: "bin/busybox", Mode: 0o755}, string(text))
	for a := range strings.FieldsSeq(string(applets)) {
		if a != "busybox" {
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox"}, "")
		}
	}
	add(tar.Header{Name: "etc/passwd", Mode: 0o644}, "root:x:0:0:root:/root:/bin/sh\njoe:x:1000:1000::/home/joe:/bin/sh\n")
	add(tar.Header{Name: "etc/group", Mode: 0o644}, "root:x:0:\njoe:x:1000:\nextra:x:1500:joe\n")
	for _, f := range []string{"etc/hosts", "etc/hostname", "etc/resolv.conf"} {
		add(tar.Header{Name: f, Mode: 0o644}, "")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	ok(t, docker, &b, "import", "-c", "ENV PATH=/bin", "-c", `CMD ["sh"]`, "-", "base:1")
}

func ok(t *testing.T, docker dockerCmd, stdin io.Reader, args ...string) string {
	t.Helper()
	r := docker(stdin, args...)
	if r.Code != 0 {
		t.Fatalf("docker %v: exit code %d\n%s%s", args, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// example is one case: Dockerfiles to build one after the other, each but the last as image before0, before1, …
type example struct {
	name        string
	dockerfiles []string
	files       []file
	args        []string // further flags of docker build
	fails       bool     // the golden file has the error
	differs     string   // why Tare gives something else than docker
}

// file is one of a build context. A name that ends with / is a folder.
type file struct {
	name, content string
	mode          os.FileMode // 0: 0644, or 0755
	link          string
}

func (c example) folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	for _, f := range c.files {
		p := filepath.Join(dir, f.name)
		must(os.MkdirAll(filepath.Dir(p), 0o755))
		mode := f.mode
		switch {
		case f.link != "":
			must(os.Symlink(f.link, p))
			continue
		case strings.HasSuffix(f.name, "/"):
			if mode == 0 {
				mode = 0o755
			}
			must(os.MkdirAll(p, 0o755))
		default:
			if mode == 0 {
				mode = 0o644
			}
			must(os.WriteFile(p, []byte(f.content), 0o600))
		}
		must(os.Chmod(p, mode))
	}
	return dir
}

// run builds all of the case's Dockerfiles, the last as image "case".
func (c example) run(t *testing.T, docker dockerCmd, dir string) (last harness.Result) {
	t.Helper()
	for i, df := range c.dockerfiles {
		name := fmt.Sprintf("before%d", i)
		if i == len(c.dockerfiles)-1 {
			name = "case"
		}
		df = strings.ReplaceAll(df, "\n\t", "\n")
		args := append([]string{"build", "-t", name, "--network", "none", "-f", "-"}, c.args...)
		if !slices.ContainsFunc(c.files, func(f file) bool { return f.name == "Dockerfile" }) {
			if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(df), 0o644); err != nil {
				t.Fatal(err)
			}
			args = append([]string{"build", "-t", name, "--network", "none"}, c.args...)
		}
		if last = docker(strings.NewReader(df), append(args, dir)...); last.Code != 0 && !c.fails {
			t.Fatalf("exit code %d\n%s%s", last.Code, last.Stdout, last.Stderr)
		}
	}
	return last
}

// build is what the case gives: error, or config and files.
func (c example) build(t *testing.T, docker dockerCmd) string {
	t.Helper()
	r := c.run(t, docker, c.folder(t))
	if c.fails {
		if r.Code == 0 {
			t.Errorf("built:\n%s", r.Stdout)
		}
		return problem(r.Stderr)
	}
	t.Cleanup(func() { docker(nil, "rmi", "-f", "case") })
	var b strings.Builder
	b.WriteString(config(t, ok(t, docker, nil, "image", "inspect", "-f", "{{json .Config}}", "case")))
	id := strings.TrimSpace(ok(t, docker, nil, "create", "case", "x"))
	defer docker(nil, "rm", id)
	b.WriteString(listing(t, ok(t, docker, nil, "export", id)))
	return b.String()
}

// problem is the daemon's error, without the client's and the deprecation's lines.
func problem(stderr string) string {
	var out []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "DEPRECATED") && !strings.Contains(line, "BuildKit") && line != "environment-variable." && !strings.HasPrefix(line, "Install the buildx") && !strings.HasPrefix(line, "https://docs") {
			out = append(out, strings.TrimPrefix(line, "Error response from daemon: "))
		}
	}
	return strings.Join(out, "\n") + "\n"
}

// config is the image's, one line for each field that is set.
func config(t *testing.T, data string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(data), &m); err != nil {
		t.Fatal(err)
	}
	var out []string
	for k, v := range m {
		text, _ := json.Marshal(v)
		switch string(text) {
		case "null", "{}", "[]", `""`, "false":
			continue
		}
		if k == "Image" || k == "Hostname" { // the parent's id and a container's name, which the classic builder leaves there
			continue
		}
		out = append(out, k+" "+string(text)+"\n")
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

// listing has one line for each file that the base lacks and no engine makes.
func listing(t *testing.T, data string) string {
	t.Helper()
	skip := map[string]bool{".dockerenv": true, "etc/mtab": true, "etc/hosts": true, "etc/hostname": true, "etc/resolv.conf": true}
	var out []string
	r := tar.NewReader(strings.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Trim(strings.TrimPrefix(h.Name, "./"), "/")
		top, _, _ := strings.Cut(name, "/")
		if name == "" || skip[name] || name == "etc" || slices.Contains([]string{"bin", "dev", "proc", "sys"}, top) {
			continue
		}
		line := fmt.Sprintf("%c %04o %d:%d %q", h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid, name)
		switch h.Typeflag {
		case tar.TypeReg:
			sum := sha256.New()
			if _, err := io.Copy(sum, r); err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf(" %d %s", h.Size, hex.EncodeToString(sum.Sum(nil))[:12])
		case tar.TypeSymlink, tar.TypeLink:
			line += " -> " + h.Linkname
		}
		out = append(out, line+"\n")
	}
	slices.Sort(out)
	return strings.Join(out, "")
}
