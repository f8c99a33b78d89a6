package harness

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"tare/internal/hub"
	"tare/internal/test/images"
)

var programs = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("TARE_BIN"); dir != "" {
		return dir, nil
	}
	// One folder for all test processes of this working tree; the linker is only asked when something changed.
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("cannot find the module: %w", err)
	}
	src := strings.TrimSpace(string(root))
	dir := filepath.Join(os.TempDir(), "tare-test-bin"+strings.ReplaceAll(src, "/", "-"))
	return dir, locked(dir, func() error {
		return build(src, dir, "./cmd/...")
	})
})

// Programs returns the folder of tared, tare, tare-run and tare-registry: TARE_BIN, or built now.
func Programs(t testing.TB) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// locked runs f while no other test process does with the same folder.
func locked(dir string, f func() error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.Create(filepath.Join(dir, ".lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	return f()
}

func build(src, dir, what string) error {
	cmd := exec.Command("go", "build", "-o", dir+"/", what)
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w\n%s", what, err, out)
	}
	return nil
}

// toolbox is the test commands' program.
var toolbox = sync.OnceValues(func() ([]byte, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tare-toolbox-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := build(strings.TrimSpace(string(root)), dir, "./internal/test/toolbox"); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, "toolbox"))
})

// Toolbox is the static program of package toolbox.
func Toolbox(t testing.TB) []byte {
	t.Helper()
	data, err := toolbox()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// commandNames are linked to the toolbox in the image.
var commandNames = strings.Fields("echo true false exit cat sleep tick env id pwd ls write mkdir rm err size trap serve fetch resolve sh")

// Registry starts a registry in this process and returns its host:port.
func (e *Engine) Registry() string {
	e.T.Helper()
	if e.registry == "" {
		h, err := hub.Open(filepath.Join(e.Dir, "registry"), nil)
		if err != nil {
			e.T.Fatal(err)
		}
		srv := httptest.NewServer(h)
		e.T.Cleanup(func() {
			srv.Close()
			h.Close()
		})
		e.registry = strings.TrimPrefix(srv.URL, "http://")
	}
	return e.registry
}

// Tools pulls the image of the test commands and returns its name, "tools".
func (e *Engine) Tools() string {
	e.T.Helper()
	tar, err := toolTar(Toolbox(e.T))
	if err != nil {
		e.T.Fatal(err)
	}
	img, err := images.Assemble(images.Options{Cmd: []string{"sh"}}, tar)
	if err != nil {
		e.T.Fatal(err)
	}
	registry := e.Registry()
	if err := img.Push("http://"+registry, "tools", "latest"); err != nil {
		e.T.Fatal(err)
	}
	e.Docker("pull", "-q", registry+"/tools")
	e.Docker("tag", registry+"/tools", "tools")
	return "tools"
}
