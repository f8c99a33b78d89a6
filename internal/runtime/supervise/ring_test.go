package supervise_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tare/internal/runtime"
)

// TestNonBlockingLog freezes the file system that a log is on: in the mode non-blocking the container goes on, what finds room in its
// buffer is written when the disk is back, the rest is dropped, whole lines of it, and other containers do not notice.
func TestNonBlockingLog(t *testing.T) {
	r := newRig(t)
	image, disk := filepath.Join(r.dir, "disk"), filepath.Join(r.dir, "mnt")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range [][]string{
		{"truncate", "-s", "32M", image}, {"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, disk},
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v %s", cmd, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	const lines, buffer = 20000, 16 << 10
	io := runtime.Stdio{OpenStdin: true, Log: runtime.Log{Driver: "json-file", Path: filepath.Join(disk, "log"), NonBlocking: true, MaxBuffer: buffer}}
	b := r.create(io, "sh", "-c", fmt.Sprintf("echo first; read x; i=0; while [ $i -lt %d ]; do echo $i; i=$((i+1)); done; read x; exit 6", lines)).start()
	other := r.create(stdio(), "sh", "-c", "while :; do echo x; sleep 0.01; done").start()
	eventually(t, "the first line", func() bool { return b.logged() == "first\n" })
	in := b.attach("", true)
	if out, err := exec.Command("fsfreeze", "-f", disk).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	thaw := func() error { return exec.Command("fsfreeze", "-u", disk).Run() }
	frozen := true
	t.Cleanup(func() {
		if frozen {
			_ = thaw()
		}
	})
	fmt.Fprintln(in, "go")
	expect(t, in, fmt.Sprint(lines-1)) // all of it went by, though no line can be written
	n := len(other.logged())
	eventually(t, "others go on", func() bool { return len(other.logged()) > n })
	frozen = false
	if err := thaw(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "end")
	if e := b.exit(); e.Code != 6 {
		t.Errorf("%+v", e)
	}
	var got string
	eventually(t, "the buffer is written", func() bool { got = strings.TrimPrefix(b.logged(), "first\n"); return strings.Count(got, "\n") > 2000 })
	if !strings.HasPrefix(got, numbers(1000)) || len(got) > 4*buffer {
		t.Errorf("%d bytes of log, which begins %.60q", len(got), got)
	}
	other.kill()
}
