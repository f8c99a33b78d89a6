package single

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestLock(t *testing.T) {
	root := filepath.Join(t.TempDir(), "data")
	f, err := Lock(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(root); err == nil || !strings.Contains(err.Error(), "another engine (pid "+strconv.Itoa(os.Getpid())+") uses the data root "+root) {
		t.Errorf("second lock: %v", err)
	}
	f.Close()
	f, err = Lock(root)
	if err != nil {
		t.Fatalf("after the first engine's end: %v", err)
	}
	f.Close()
}

func TestPidFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "tared.pid")
	zombie := exec.Command("true") // an engine that was killed and not waited for yet
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	defer zombie.Wait()
	for _, old := range []string{"", "nonsense", "1", "999999999", strconv.Itoa(zombie.Process.Pid)} {
		if old != "" {
			os.WriteFile(path, []byte(old), 0o644)
		}
		if err := PidFile(path); err != nil {
			t.Errorf("over %q: %v", old, err)
		}
		if data, _ := os.ReadFile(path); string(data) != strconv.Itoa(os.Getpid()) {
			t.Errorf("the file has %q", data)
		}
	}
	RemovePidFile(path)
	if _, err := os.Stat(path); err == nil {
		t.Error("the file stays")
	}
	os.WriteFile(path, []byte("1"), 0o644)
	RemovePidFile(path)
	if _, err := os.Stat(path); err != nil {
		t.Error("another engine's file was removed")
	}
}
