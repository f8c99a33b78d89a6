package rootfs

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// stack makes n layers that each have a file of their own and one in common; topmost first.
func stack(t *testing.T, n int) (lower []string, upper, work string) {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		l := fmt.Sprintf("%s/l%d", dir, i)
		os.Mkdir(l, 0o755)
		os.WriteFile(fmt.Sprintf("%s/own%d", l, i), nil, 0o644)
		os.WriteFile(l+"/top", fmt.Append(nil, i), 0o644)
		lower = append([]string{l}, lower...)
	}
	upper, work = dir+"/upper", dir+"/work"
	os.Mkdir(upper, 0o755)
	os.Mkdir(work, 0o755)
	return lower, upper, work
}

func TestOpen(t *testing.T) {
	before, _ := os.ReadFile("/proc/self/mountinfo")
	for _, old := range []bool{false, true} {
		for _, n := range []int{0, 1, 2, 120} {
			for _, write := range []bool{false, true} {
				t.Run(fmt.Sprintf("old %v, %d layers, write %v", old, n, write), func(t *testing.T) {
					forceOld = old
					defer func() { forceOld = false }()
					lower, upper, work := stack(t, n)
					if !write {
						upper, work = "", ""
					}
					r, err := Open(lower, upper, work)
					if err != nil {
						t.Fatal(err)
					}
					defer r.Close()
					if n > 0 {
						if top, err := r.ReadFile("/top", 100); err != nil || string(top) != fmt.Sprint(n-1) {
							t.Errorf("top %q, %v", top, err)
						}
						if !r.Exists("/own0") {
							t.Error("the lowest layer is missing")
						}
					}
					if write {
						fd, err := r.MakeDir("/a/b", func(int) error { return nil })
						if err != nil {
							t.Fatal(err)
						}
						unix.Close(fd)
						if _, err := os.Stat(upper + "/a/b"); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
	}
	after, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Count(string(after), "overlay") > strings.Count(string(before), "overlay") {
		t.Error("a mount is visible on the host")
	}
}

func TestUser(t *testing.T) {
	dir := t.TempDir()
	os.Mkdir(dir+"/etc", 0o755)
	os.WriteFile(dir+"/etc/passwd", []byte("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"), 0o644)
	os.WriteFile(dir+"/etc/group", []byte("root:x:0:\nstaff:x:50:app\n"), 0o644)
	r, err := Open([]string{dir}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for word, want := range map[string]string{"": "0:0 /root", "app": "1000:1001 /home/app", "app:staff": "1000:50 /home/app", "77": "77:0 /", "77:88": "77:88 /", "1000": "1000:1001 /home/app"} {
		u, err := r.User(word)
		if got := fmt.Sprintf("%d:%d %s", u.UID, u.GID, u.Home); err != nil || got != want {
			t.Errorf("user %q: %s, %v, want %s", word, got, err, want)
		}
	}
	for word, want := range map[string]string{"77": "77:77", "77:88": "77:88", "app": "1000:1001", "root:staff": "0:50"} {
		uid, gid, err := r.Owner(word)
		if got := fmt.Sprintf("%d:%d", uid, gid); err != nil || got != want {
			t.Errorf("owner %q: %s, %v, want %s", word, got, err, want)
		}
	}
	if _, err := r.User("nobody-here"); err == nil {
		t.Error("unknown user found")
	}
}
