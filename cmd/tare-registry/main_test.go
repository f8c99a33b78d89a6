package main

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"tare/internal/test/images"
)

// TestMain lets the test binary be tare-registry, for the tests that need the program.
func TestMain(m *testing.M) {
	if os.Getenv("TARE_REGISTRY_TEST") == "1" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// program starts tare-registry and returns its base URL.
func program(t *testing.T, root string) (*exec.Cmd, string) {
	t.Helper()
	return programWith(t, "--root", root, "--addr", "127.0.0.1:0", "--quiet")
}

// programWith is the same with any arguments.
func programWith(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "TARE_REGISTRY_TEST=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if !ok {
		t.Fatalf("first line %q, %v", line, err)
	}
	return cmd, "http://" + addr
}

func TestWhatWasAcknowledgedSurvivesKill(t *testing.T) {
	root := t.TempDir()
	cmd, base := program(t, root)
	img, err := images.Generate(images.Options{Layers: 3, FilesPerLayer: 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Push(base, "a", "v1"); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	_, base = program(t, root)
	paths := []string{"/v2/a/manifests/v1", "/v2/a/blobs/" + img.Config.Digest.String()}
	for _, l := range img.Layers {
		paths = append(paths, "/v2/a/blobs/"+l.Digest.String())
	}
	for _, path := range paths {
		rs, err := http.Head(base + path)
		if err != nil || rs.StatusCode != 200 {
			t.Errorf("%s: %v %v", path, rs, err)
		}
	}
}

func TestTermEndsItCleanly(t *testing.T) {
	cmd, base := program(t, t.TempDir())
	rs, err := http.Get(base + "/v2/")
	if err != nil || rs.StatusCode != 200 {
		t.Fatalf("%v %v", rs, err)
	}
	rs.Body.Close()
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}
