package calls

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// run executes a program to its end: what it wrote, and its exit code.
func run(t *testing.T, p *Program) (string, int) {
	t.Helper()
	fd, err := unix.MemfdCreate("image", 0)
	if err != nil {
		t.Fatal(err)
	}
	image := os.NewFile(uintptr(fd), "image")
	defer image.Close()
	if _, err := image.Write(Image()); err != nil {
		t.Fatal(err)
	}
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	program.Write(b)
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{image, program} // 3 and 4
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run()
	return out.String(), cmd.ProcessState.ExitCode()
}

func (p *Program) exit(code uint64) {
	p.Call(unix.SYS_EXIT_GROUP, V(code))
}

func (p *Program) print(at, n Arg) {
	p.Call(unix.SYS_WRITE, V(uint64(1)), at, n)
}

func TestResultsFeedArguments(t *testing.T) {
	p := New('f', 'x')
	fd, n, buf := p.Words(0), p.Words(0), p.Space(64)
	file := t.TempDir() + "/f"
	os.WriteFile(file, []byte("from a file\n"), 0o600)
	at := int64(unix.AT_FDCWD)
	p.Call(unix.SYS_OPENAT, V(uint64(at)), V(p.String(file))).Out = fd
	p.Call(unix.SYS_READ, Slot(fd), V(buf), V(uint64(64))).Out = n
	p.print(V(buf), Slot(n))
	p.exit(3)
	if out, code := run(t, p); out != "from a file\n" || code != 3 {
		t.Errorf("exit %d: %q", code, out)
	}
}

func TestFailure(t *testing.T) {
	p := New('f', 'x')
	failed := p.Label()
	p.Failed(failed)
	p.expected(unix.ENOENT)
	p.Call(unix.SYS_CLOSE, V(uint64(99))).At = 0x10002
	p.exit(1)
	p.Here(failed)
	p.print(V(uint64(Failure)), V(uint64(FailureSize)))
	p.print(V(uint64(Errno)), V(uint64(ErrnoSize)))
	p.exit(4)
	want := "f\x02\x00\x01\x00\x09\x00\x00\x00x\x09\x00\x00\x00"
	if out, code := run(t, p); out != want || code != 4 {
		t.Errorf("exit %d: %q", code, out)
	}
}

// expected adds a call that fails with an errno that the program has a word on.
func (p *Program) expected(errno unix.Errno) {
	on, cwd := p.Label(), int64(unix.AT_FDCWD)
	p.Call(unix.SYS_OPENAT, V(uint64(cwd)), V(p.String("/no/such"))).On = []On{{uint16(unix.EACCES), 0}, {uint16(errno), on}}
	p.exit(77)
	p.Here(on)
}

func TestActs(t *testing.T) {
	p := New('f', 'x')
	failed, other := p.Label(), p.Label()
	p.Failed(failed)
	a, b := p.Words(0x1f, 5), p.Words(0)
	p.Call(Test, V(a), V(uint64(0xf)), V(uint64(0xf)), To(failed))
	p.Call(Test, V(a), V(uint64(0xff)), V(uint64(0xf)), To(other))
	p.exit(78)
	p.Here(other)
	p.Call(Set, Slot(a), V(b))
	text := p.Space(8)
	p.Call(Octal, V(0o41755), V(text), V(4))
	p.print(V(text), V(5))
	p.Call(Fail, Slot(b))
	p.Here(failed)
	p.Call(unix.SYS_EXIT_GROUP, Slot(LastErrno))
	if out, code := run(t, p); code != 0x1f || out != "1755\x00" {
		t.Errorf("exit %d: %q", code, out)
	}
}

func TestHome(t *testing.T) {
	const passwd = "root:x:0:0::/root:/bin/sh\nshort:x:7\nu:x:10:1000:U, the:/home/u:/bin/sh\n\nten:x:100:1::/ten\nempty:x:5:5:::/bin/sh\nlast:x:1000:1:last::/\nlong:x:8:8::/" + "very/long/and/longer" + ":/bin/sh\nend:x:99:9:9:/end"
	for uid, want := range map[string]string{
		"0": "/root", "10": "/home/u", "100": "/ten", "1": "/", "7": "/", "5": "/", "8": "/", "99": "/end", "": "/", "10000": "/", "1000": "/",
	} {
		p := New('f', 'x')
		place := p.Bytes([]byte("/\x00..............."))
		p.Call(Home, V(p.String(passwd)), V(len(passwd)), V(p.String(uid)), V(place), V(16))
		p.print(V(place), V(17))
		p.exit(0)
		out, code := run(t, p)
		if got, _, _ := strings.Cut(out, "\x00"); got != want || code != 0 {
			t.Errorf("uid %s: exit %d, %q", uid, code, got)
		}
	}
}

// The other processor's interpreter is at least assembled, and its image laid out.
func TestOtherProcessor(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		for _, verb := range []string{"vet", "build"} {
			cmd := exec.Command("go", verb, ".")
			cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s for %s: %v\n%s", verb, arch, err, out)
			}
		}
	}
}

func BenchmarkImage(b *testing.B) {
	fd, _ := unix.MemfdCreate("image", 0)
	image := os.NewFile(uintptr(fd), "image")
	image.Write(Image())
	p := New('f', 'x')
	p.exit(0)
	code, _ := p.Marshal()
	pfd, _ := unix.MemfdCreate("program", 0)
	program := os.NewFile(uintptr(pfd), "program")
	program.Write(code)
	for b.Loop() {
		proc, err := os.StartProcess("/proc/self/fd/3", []string{"x"}, &os.ProcAttr{Files: []*os.File{nil, nil, nil, image, program}})
		if err != nil {
			b.Fatal(err)
		}
		proc.Wait()
	}
}
