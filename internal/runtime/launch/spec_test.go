package launch

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/runtime/cgroup"
	"tare/internal/runtime/plan"
)

// hostID is where the tests' user namespaces begin on the host.
const hostID = 100000

var ids = []specs.LinuxIDMapping{{ContainerID: 0, HostID: hostID, Size: 65536}}

// newUserRig is a container in a user namespace, with a root that belongs to it.
func newUserRig(t *testing.T, args ...string) *rig {
	t.Helper()
	r := newRig(t, args...)
	dir, err := os.MkdirTemp("", "tare-user-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	if out, err := exec.Command("cp", "-a", layer(t), dir+"/root").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, filepath.Walk(dir+"/root", func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, hostID, hostID)
	}))
	must(t, os.Chmod(dir+"/root", 0o755))
	r.root, r.spec.Root = nil, &specs.Root{Path: dir + "/root"}
	r.spec.Linux.Namespaces = append(r.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	r.spec.Linux.UIDMappings, r.spec.Linux.GIDMappings = ids, ids
	return r
}

func TestUserNamespace(t *testing.T) {
	r := newUserRig(t, sh(`cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id
cat /proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_forward
stat -c '%n %t:%T %u %F' /dev/null /bin/busybox; touch /new && stat -c %u:%g /new
cut -d: -f3 /proc/self/cgroup | sort -u
grep -E 'Cap(Eff|Bnd)' /proc/self/status | tr '\t' ' '; cat /proc/self/oom_score_adj; ulimit -n; wc -c </proc/interrupts`)...)
	r.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	score := 321
	r.spec.Process.OOMScoreAdj = &score
	r.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 77}}
	expect(t, r, " 0 100000 65536\n 0 100000 65536\nuid=0(root) gid=0\nbox\n1\n/dev/null 1:3 65534 character special file\n/bin/busybox 0:0 0 regular file\n0:0\n/\nCapEff: 00000000a80425fb\nCapBnd: 00000000a80425fb\n321\n77\n0\n")
}

// A user of the namespace, a bind that only the host's root can reach, and the ids that the host sees.
func TestUserNamespaceOfUser(t *testing.T) {
	r := newUserRig(t, sh(`id; cat /mnt/file; stat -c %u /mnt/file; (echo x >/mnt/file) 2>&1 | sed 's/.*: //'; (mount -t tmpfs x /tmp) 2>&1 | sed 's/.*: //'`)...)
	secret := t.TempDir() // 0700 above it
	must(t, os.WriteFile(secret+"/file", []byte("reachable\n"), 0o644))
	bind(r.spec, secret, "/mnt", "rbind", "ro")
	r.spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5}}
	expect(t, r, "uid=1000(u) gid=1000 groups=5\nreachable\n65534\nRead-only file system\npermission denied (are you root?)\n")
}

// Another process enters the user namespace of a container, and a further container joins it by path.
func TestUserNamespaceJoined(t *testing.T) {
	r := newUserRig(t, "sleep", "1000")
	_, err := r.create()
	must(t, err)
	must(t, r.init.Go())
	_, err = r.init.Next()
	must(t, err)
	out, code, err := r.enter(&specs.Process{Args: sh("cat /proc/self/uid_map | tr -s ' '; id; readlink /proc/self/ns/user | sed 's/[0-9]//g'; echo $$ | sed 's/.*/pid/'; ls /proc/1/ns >/dev/null && pwd"), Env: []string{"PATH=/bin"}, Cwd: "/tmp",
		User: specs.User{UID: 7, GID: 8}})
	must(t, err)
	if want := " 0 100000 65536\nuid=7 gid=8\nuser:[]\npid\nls: can't open '/proc/1/ns': Permission denied\n"; out != want || code != 1 {
		t.Errorf("exec: exit %d\n%s", code, out)
	}
	other := newUserRig(t, sh("readlink /proc/self/ns/user; readlink /proc/self/ns/ipc; id -u; touch /x; stat -c %u /x; echo $$")...)
	dir := "/proc/" + itoa(r.init.Pid) + "/ns/"
	for i := range other.spec.Linux.Namespaces {
		n := &other.spec.Linux.Namespaces[i]
		switch n.Type {
		case specs.UserNamespace:
			n.Path = dir + "user"
		case specs.IPCNamespace:
			n.Path = dir + "ipc"
		}
	}
	user, err := os.Readlink(dir + "user")
	must(t, err)
	ipc, err := os.Readlink(dir + "ipc")
	must(t, err)
	expect(t, other, user+"\n"+ipc+"\n0\n0\n1\n")
}

func (r *rig) enter(p *specs.Process) (string, int, error) {
	r.t.Helper()
	compiled, err := plan.CompileExec(r.spec, p, r.host())
	must(r.t, err)
	out, in, err := os.Pipe()
	must(r.t, err)
	defer out.Close()
	child, err := New(compiled, r.init.Pid, Stdio{Out: in, Err: in})
	in.Close()
	if err != nil {
		return "", -1, err
	}
	defer child.Close()
	m, err := child.Next()
	must(r.t, err)
	if m.Err != nil {
		unix.Wait4(child.Pid, nil, 0, nil)
		return "", -1, m.Err
	}
	must(r.t, child.Go())
	return finish(r.t, child, out)
}

// The container's clocks are its own, and those of an exec in it.
func TestTimeNamespace(t *testing.T) {
	for _, user := range []bool{false, true} {
		r := newRig(t, "sleep", "1000")
		if user {
			r = newUserRig(t, "sleep", "1000")
		}
		r.spec.Linux.Namespaces = append(r.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		r.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1000}, "boottime": {Secs: 1e8, Nanosecs: 5}}
		_, err := r.create()
		must(t, err)
		must(t, r.init.Go())
		_, err = r.init.Next()
		must(t, err)
		own, err := os.Readlink("/proc/" + itoa(r.init.Pid) + "/ns/time")
		must(t, err)
		if host, _ := os.Readlink("/proc/self/ns/time"); own == host {
			t.Fatal("the container has the host's clocks")
		}
		out, code, err := r.enter(&specs.Process{Args: sh("readlink /proc/self/ns/time; cut -c1-3 /proc/uptime"), Env: []string{"PATH=/bin"}, Cwd: "/"})
		must(t, err)
		if want := own + "\n100\n"; out != want || code != 0 {
			t.Errorf("exec: exit %d\n%s, want %s", code, out, want)
		}
		// A further container joins them.
		other := newRig(t, sh("readlink /proc/self/ns/time")...)
		other.spec.Linux.Namespaces = append(other.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace, Path: "/proc/" + itoa(r.init.Pid) + "/ns/time"})
		expect(t, other, own+"\n")
	}
	if host, err := os.ReadFile("/proc/uptime"); err != nil || strings.HasPrefix(string(host), "100") {
		t.Errorf("the host's clock changed: %s", host)
	}
}

// A mount namespace by path: the container is put together inside of it.
func TestMountNamespaceJoined(t *testing.T) {
	holder := exec.Command("unshare", "-m", "sleep", "1000")
	must(t, holder.Start())
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	path := "/proc/" + itoa(holder.Process.Pid) + "/ns/mnt"
	own, _ := os.Readlink("/proc/self/ns/mnt")
	var there string
	for there = own; there == own; { // until unshare has done so
		var err error
		there, err = os.Readlink(path)
		must(t, err)
	}
	r := newRig(t, sh("readlink /proc/self/ns/mnt; ls /bin/sh")...)
	for i := range r.spec.Linux.Namespaces {
		if n := &r.spec.Linux.Namespaces[i]; n.Type == specs.MountNamespace {
			n.Path = path
		}
	}
	expect(t, r, there+"\n/bin/sh\n")
}

func TestIDMappedMounts(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/file", nil, 0o644))
	must(t, os.Chown(dir+"/file", 5, 6))
	mapping := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 100}}
	add := func(s *specs.Spec, at string, own bool, options ...string) {
		bind(s, dir, at, options...)
		if own {
			m := &s.Mounts[len(s.Mounts)-1]
			m.UIDMappings, m.GIDMappings = mapping, mapping
		}
	}
	r := newRig(t, sh("stat -c %u:%g /a/file /b/file; touch /a/new 2>/dev/null || echo unmapped")...)
	add(r.spec, "/a", true, "bind", "idmap")
	add(r.spec, "/b", true, "rbind", "ridmap", "ro")
	expect(t, r, "1005:1006\n1005:1006\nunmapped\n")

	// In a user namespace, with the container's own mapping, the files are its root's.
	r = newUserRig(t, sh("stat -c %u:%g /a/file; touch /a/new && stat -c %u /a/new")...)
	add(r.spec, "/a", false, "rbind", "ridmap")
	expect(t, r, "5:6\n0\n")
	var st unix.Stat_t
	must(t, unix.Stat(dir+"/new", &st))
	if st.Uid != 0 {
		t.Errorf("on the host the new file is %d's", st.Uid)
	}
}

func TestTmpCopyUp(t *testing.T) {
	r := newRig(t, sh("stat -c '%n %a %u %F' /etc /etc/passwd /etc/sub/link; cat /etc/sub/deep; echo x >/etc/new; ls /etc; grep ' /etc ' /proc/mounts | cut -d' ' -f3-4 | sed s/,size.*//; stat -c %Y /etc/passwd")...)
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/etc/sub", 0o750))
	must(t, os.WriteFile(dir+"/etc/sub/deep", []byte("deep\n"), 0o600))
	must(t, os.Symlink("/nowhere", dir+"/etc/sub/link"))
	must(t, os.Chmod(dir+"/etc", 0o711))
	r.root.Lower = append([]string{dir}, r.root.Lower...)
	stamp := unix.Timespec{Sec: 1e9}
	r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=1m", "nosuid"}})
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, layer(t)+"/etc/passwd", []unix.Timespec{stamp, stamp}, 0))
	expect(t, r, "/etc 711 0 directory\n/etc/passwd 644 0 regular file\n/etc/sub/link 777 0 symbolic link\ndeep\nnew\nnotexec\npasswd\nsub\ntmpfs rw,nosuid,relatime\n1000000000\n")
}

func TestMountOptions(t *testing.T) {
	flags := func(at string) string { return "grep ' " + at + " ' /proc/self/mountinfo | cut -d' ' -f6;" }
	r := newRig(t, sh(flags("/a")+flags("/b")+flags("/c")+flags("/d")+flags("/proc")+flags("/dev/shm"))...)
	source := t.TempDir()
	tmpfs := func(at string, options ...string) {
		r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs", Options: options})
	}
	tmpfs("/a", "rro", "rnosuid", "rnoexec", "rnodev", "rnoatime")
	tmpfs("/b", "sync", "dirsync", "nosymfollow", "strictatime", "nodiratime")
	bind(r.spec, source, "/c", "rbind", "rro", "rnosymfollow", "rnodiratime", "rnoatime")
	bind(r.spec, source, "/d", "bind", "ro", "rw", "nodev", "dev", "noexec", "noatime", "atime")
	bind(r.spec, "", "/proc", "remount", "ro")
	r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"remount", "ro", "size=1m"}})
	expect(t, r, "ro,nosuid,nodev,noexec,noatime\nrw,nodiratime,nosymfollow\nro,noatime,nodiratime,nosymfollow\nrw,noexec,relatime\nro,nosuid,nodev,noexec,relatime\nro,relatime\n")
}

func TestScheduling(t *testing.T) {
	r := newRig(t, sh("cut -d' ' -f19,41 /proc/self/stat; cat /proc/self/numa_maps | head -1 | cut -d' ' -f2")...)
	r.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	r.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 2}
	r.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	r.spec.Process.Args = []string{"sleep", "1000"}
	_, err := r.create()
	must(t, err)
	must(t, r.init.Go())
	_, err = r.init.Next()
	must(t, err)
	attr, err := unix.SchedGetAttr(r.init.Pid, 0)
	must(t, err)
	if attr.Policy != 3 || attr.Nice != 7 || attr.Flags&1 == 0 {
		t.Errorf("%+v", attr)
	}
	prio, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(r.init.Pid), 0)
	if errno != 0 || prio != 2<<13|2 {
		t.Errorf("I/O priority %#x, %v", prio, errno)
	}
	maps, err := os.ReadFile("/proc/" + itoa(r.init.Pid) + "/numa_maps")
	must(t, err)
	if !strings.Contains(string(maps), "bind=static:0") {
		t.Errorf("memory policy:\n%s", maps)
	}
	// An exec is told its CPUs.
	p := &specs.Process{Args: sh("grep Cpus_allowed_list /proc/self/status | tr '\\t' ' '"), Env: []string{"PATH=/bin"}, Cwd: "/", ExecCPUAffinity: &specs.CPUAffinity{Initial: "0-1", Final: "0"}}
	if out, _, err := r.enter(p); err != nil || out != "Cpus_allowed_list: 0\n" {
		t.Errorf("%q, %v", out, err)
	}
	p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "1"}
	if out, _, err := r.enter(p); err != nil || out != "Cpus_allowed_list: 1\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// What this machine does not allow is done as far as it goes, and told.
func TestClampedAndTold(t *testing.T) {
	r := newRig(t, sh("cat /proc/self/oom_score_adj; ulimit -Hn")...)
	low := -999
	r.spec.Process.OOMScoreAdj = &low
	host := r.host()
	if host.CanRaiseLimits {
		t.Log("this machine can lower scores and raise limits: nothing to tell")
		return
	}
	r.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: host.Hard["RLIMIT_NOFILE"] + 1}}
	p, err := plan.Compile(r.spec, r.root, host)
	must(t, err)
	if len(p.Warnings) != 2 || !strings.Contains(p.Warnings[0]+p.Warnings[1], "process.oomScoreAdj -999 needs CAP_SYS_RESOURCE") || !strings.Contains(p.Warnings[0]+p.Warnings[1], "process.rlimits[0]") {
		t.Errorf("%q", p.Warnings)
	}
	expect(t, r, itoa(host.OOMScore)+"\n"+itoa(int(host.Hard["RLIMIT_NOFILE"]))+"\n")
}

func TestNoPivot(t *testing.T) {
	r := newRig(t, sh("ls /bin/sh; ls /; cut -d' ' -f5 /proc/self/mountinfo | grep -vE '^/(proc|sys|dev)' | wc -l")...)
	p, err := plan.CompileWith(r.spec, r.root, r.host(), plan.Options{NoPivot: true})
	must(t, err)
	out, in, err := os.Pipe()
	must(t, err)
	r.spec.Linux.CgroupsPath, p.CgroupDir = "", ""
	for i := len(p.Steps) - 1; i >= 0; i-- {
		if p.Steps[i].Op == plan.OpCgroup {
			p.Steps = append(p.Steps[:i], p.Steps[i+1:]...)
		}
	}
	child, err := New(p, 0, Stdio{Out: in, Err: in})
	in.Close()
	must(t, err)
	defer child.Close()
	m, err := child.Next()
	must(t, err)
	must(t, m.Err)
	must(t, child.Go())
	text, code, err := finish(t, child, out)
	if err != nil || code != 0 || !strings.HasPrefix(text, "/bin/sh\nbin\ndev\netc\nhome\nproc\nsys\ntmp\n1\n") {
		t.Errorf("exit %d, %v: %s", code, err, text)
	}
}

// A filter that asks somebody: the listener is taken out of the child, whatever the filter holds.
func TestSeccompListener(t *testing.T) {
	for name, calls := range map[string][]string{"one": {"mkdir"}, "what the stage uses": {"mkdir", "recvfrom", "sendto", "futex", "write", "close", "setresuid"}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, sh("mkdir /new; ls -d /new; echo done")...)
			r.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/nowhere",
				Flags:    []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv},
				Syscalls: []specs.LinuxSyscall{{Names: calls, Action: specs.ActNotify}}}
			out, err := r.create()
			must(t, err)
			must(t, r.init.Go())
			m, err := r.init.Next()
			must(t, err)
			if m.Notify == 0 {
				t.Fatalf("%+v", m)
			}
			listener, err := Listener(r.init.PidFD, m.Notify)
			must(t, err)
			must(t, r.init.On())
			go answer(listener)
			text, code, err := finish(t, r.init, out)
			if want := "mkdir: can't create directory '/new': Value too large for defined data type\nls: /new: No such file or directory\ndone\n"; err != nil || text != want || code != 0 {
				t.Errorf("exit %d, %v: %s", code, err, text)
			}
		})
	}
}

// answer fails every mkdir with EOVERFLOW and lets all else go on (seccomp_unotify(2)).
func answer(listener *os.File) {
	defer listener.Close()
	for {
		var req [80]byte // struct seccomp_notif
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, listener.Fd(), 0xc0502100, uintptr(unsafe.Pointer(&req))); errno != 0 {
			if errno == unix.EINTR {
				continue
			}
			return
		}
		var resp [24]byte // struct seccomp_notif_resp
		copy(resp[:8], req[:8])
		if nr := binary.LittleEndian.Uint32(req[16:]); nr == unix.SYS_MKDIR {
			eoverflow := -int32(unix.EOVERFLOW)
			binary.LittleEndian.PutUint32(resp[16:], uint32(eoverflow))
		} else {
			resp[20] = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
		}
		unix.Syscall(unix.SYS_IOCTL, listener.Fd(), 0xc0182101, uintptr(unsafe.Pointer(&resp)))
	}
}

// A child that could not go on tells why, also to a parent that said go before it heard.
func TestToldToGoTooEarly(t *testing.T) {
	for range 20 {
		r := newRig(t, "nosuch")
		p, err := plan.Compile(r.spec, r.root, r.host())
		must(t, err)
		r.group, err = cgroup.Open(r.spec.Linux.CgroupsPath)
		must(t, err)
		must(t, r.group.Create(nil))
		child, err := New(p, 0, Stdio{})
		must(t, err)
		must(t, child.Go())
		m, err := child.Next()
		must(t, err)
		var exec *ExecError
		if !errors.As(m.Err, &exec) {
			t.Errorf("%+v", m)
		}
		unix.Wait4(child.Pid, nil, 0, nil)
		child.Close()
		must(t, r.group.Remove())
		parent, _ := cgroup.Open(filepath.Dir(r.spec.Linux.CgroupsPath))
		_ = parent.Remove()
	}
}

// A stage that has entered a user namespace and waits is closed to the namespace's own root: he can neither trace
// it nor look through it at the host's files.
func TestStageInUserNamespaceIsOpaque(t *testing.T) {
	r := newUserRig(t, sh(`while true; do
  for p in /proc/[0-9]*; do
    case $p in /proc/1|/proc/$$) continue;; esac
    ls $p/root/ $p/fd $p/cwd/ >/dev/null 2>&1 && grep -q tare-run $p/cmdline 2>/dev/null && echo open $p && exit 9
  done
done`)...)
	out, err := r.create()
	must(t, err)
	must(t, r.init.Go())
	_, err = r.init.Next()
	must(t, err)
	for range 20 {
		if _, _, err := r.enter(&specs.Process{Args: []string{"true"}, Env: []string{"PATH=/bin"}, Cwd: "/"}); err != nil {
			t.Fatal(err)
		}
	}
	must(t, unix.PidfdSendSignal(r.init.PidFD, unix.SIGKILL, nil, 0))
	b := make([]byte, 100)
	if n, _ := out.Read(b); n > 0 {
		t.Errorf("%s", b[:n])
	}
	// While it waits, its memory and descriptors are the host's root's.
	p, err := opaqueProgram()
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Fstat(p, &st))
	if st.Mode&0o777 != 0o111 {
		t.Errorf("the program has mode %o", st.Mode)
	}
}
