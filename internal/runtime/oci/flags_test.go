package oci

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	ocifeatures "github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"

	"tare/internal/runtime/cgroup"
)

// running is a container that sleeps; it is reaped when the test is over.
func running(t *testing.T) (*rig, record) {
	t.Helper()
	r := newRig(t, "sleep", "1000")
	r.ok("run", "-d", "-b", r.bundle, r.id)
	s := r.state()
	t.Cleanup(func() { reap(s.Pid) })
	t.Cleanup(func() { _ = unix.Kill(s.Pid, unix.SIGKILL) })
	return r, s
}

func TestUpdateFlags(t *testing.T) {
	r, _ := running(t)
	r.ok("update", "--memory", "64m", "--memory-reservation", "32MB", "--cpu-share", "300", "--cpu-period", "50000", "--cpu-quota", "25000", "--cpu-burst", "1000",
		"--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "44", "--kernel-memory", "1g", r.id)
	b, err := os.ReadFile(r.root + "/" + r.id + "/config.json")
	must(t, err)
	var s specs.Spec
	must(t, json.Unmarshal(b, &s))
	res := s.Linux.Resources
	if *res.Memory.Limit != 64<<20 || *res.Memory.Reservation != 32<<20 || *res.CPU.Shares != 300 || *res.CPU.Quota != 25000 || *res.CPU.Period != 50000 || *res.CPU.Burst != 1000 || res.CPU.Cpus != "0" || *res.Pids.Limit != 44 {
		t.Errorf("kept: %s", b)
	}
	g, err := cgroup.Open("/" + r.id)
	must(t, err)
	st, err := g.Stats()
	must(t, err)
	if st.MemoryLimit != 64<<20 || st.PidsLimit != 44 {
		t.Errorf("%+v", st)
	}
	log, _ := os.ReadFile(r.bundle + "/log")
	if !strings.Contains(string(log), `"level":"warning","msg":"--kernel-memory has no effect`) {
		t.Errorf("log: %s", log)
	}
	// What was not named is what it was.
	r.ok("update", "--pids-limit", "45", r.id)
	if st, _ := g.Stats(); st.MemoryLimit != 64<<20 || st.PidsLimit != 45 {
		t.Errorf("%+v", st)
	}
	r.fails("is no size", "update", "--memory", "much", r.id)
	r.fails("intelRdt is not supported", "update", "--l3-cache-schema", "L3:0=f", r.id)
	// Device rules are live too: given as a whole, they replace those before.
	rules := r.bundle + "/resources.json"
	const open = "mknod /dev/k c 1 11 2>/dev/null; (: >/dev/k) 2>&1 | sed 's/.*: //'; echo tried"
	try := func(allowed, want string) {
		t.Helper()
		must(t, os.WriteFile(rules, []byte(`{"devices":[{"allow":false,"access":"rwm"}`+allowed+`]}`), 0o644))
		r.ok("update", "-r", rules, r.id)
		if out := r.ok("exec", r.id, "sh", "-c", open); out != want {
			t.Errorf("with %q: %s", allowed, out)
		}
	}
	try(`,{"allow":true,"type":"c","major":1,"minor":11,"access":"rwm"}`, "tried\n")
	try("", "Operation not permitted\ntried\n")
	try(`,{"allow":true,"type":"c","major":1,"minor":11,"access":"rw"}`, "tried\n")
}

func TestExecFlags(t *testing.T) {
	r, s := running(t)
	g, err := cgroup.Mounted()
	must(t, err)
	r.fails("does not exist", "exec", "--cgroup", "sub", r.id, "true")
	mounts := map[string]bool{}
	for _, m := range g.Controllers {
		mounts[m] = true
	}
	if g.Unified != "" {
		mounts[g.Unified] = true
	}
	for m := range mounts {
		must(t, os.Mkdir(m+"/"+r.id+"/sub", 0o755))
		if cpus, err := os.ReadFile(m + "/" + r.id + "/cpuset.cpus"); err == nil && len(cpus) > 1 && !g.V2 {
			must(t, os.WriteFile(m+"/"+r.id+"/sub/cpuset.cpus", cpus, 0))
			mems, _ := os.ReadFile(m + "/" + r.id + "/cpuset.mems")
			must(t, os.WriteFile(m+"/"+r.id+"/sub/cpuset.mems", mems, 0))
		}
	}
	r.ok("exec", "-d", "--pid-file", r.bundle+"/exec.pid", "--cgroup", "sub", r.id, "sleep", "1000")
	b, err := os.ReadFile(r.bundle + "/exec.pid")
	must(t, err)
	pid, err := strconv.Atoi(string(b))
	must(t, err)
	text, err := os.ReadFile("/proc/" + string(b) + "/cgroup")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, r.id) && !strings.HasSuffix(line, r.id+"/sub\n") {
			t.Errorf("cgroup %s", line)
		}
	}
	must(t, unix.Kill(pid, unix.SIGKILL))
	reap(pid)
	if !g.V2 {
		out := r.ok("exec", "--cgroup", "memory:sub", r.id, "cat", "/proc/self/cgroup")
		if !strings.Contains(out, ":memory:/sub") || strings.Contains(out, "pids:/sub") {
			t.Error(out)
		}
		r.fails("unknown controller nosuch", "exec", "--cgroup", "nosuch:sub", r.id, "true")
	}
	// It never leads out of the container's own.
	r.fails("does not exist", "exec", "--cgroup", "../..//nosuch", r.id, "true")

	if out := r.ok("exec", "-u", "7:8", "-g", "9", "-g", "10", "--cap", "CAP_SYS_TIME", "--no-new-privs", "-e", "A=b", "--cwd", "/bin", r.id, "sh", "-c",
		"id; pwd; echo $A; cat /proc/self/status"); !strings.Contains(out, "uid=7 gid=8 groups=8,9,10") && !strings.Contains(out, "uid=7 gid=8 groups=9,10") ||
		!strings.Contains(out, "/bin\nb\n") || !strings.Contains(out, "NoNewPrivs:\t1") || !strings.Contains(out, "CapBnd:\t00000000aa0425fb") {
		t.Error(out)
	}
	if !appArmorHere() {
		r.fails("process.apparmorProfile x needs AppArmor", "exec", "--apparmor", "x", r.id, "true")
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		r.fails("process.selinuxLabel x needs SELinux", "exec", "--process-label", "x", r.id, "true")
	}
	r.ok("pause", r.id)
	r.fails("paused container (use --ignore-paused", "exec", r.id, "true")
	r.ok("resume", r.id)
	if got := r.state().Pid; got != s.Pid {
		t.Errorf("pid %d became %d", s.Pid, got)
	}
}

func appArmorHere() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(b) > 0 && b[0] == 'Y'
}

// Clamped limits are told in the log, as a warning, and the container runs.
func TestWarnings(t *testing.T) {
	var lim unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &lim))
	r := newRig(t, "sh", "-c", "ulimit -Hn; cat /proc/self/oom_score_adj")
	r.edit(func(s *specs.Spec) {
		low := -900
		s.Process.OOMScoreAdj = &low
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: lim.Max + 1}}
	})
	out := r.ok("run", "-b", r.bundle, r.id)
	log, err := os.ReadFile(r.bundle + "/log")
	if err != nil {
		t.Log("this machine can do it all: ", out)
		return
	}
	for _, want := range []string{`"level":"warning","msg":"process.oomScoreAdj -900 needs CAP_SYS_RESOURCE`, `"level":"warning","msg":"process.rlimits[0]: a hard limit of`} {
		if !strings.Contains(string(log), want) {
			t.Errorf("log: %s", log)
		}
	}
	if !strings.HasPrefix(out, strconv.FormatUint(lim.Max, 10)+"\n") {
		t.Error(out)
	}
}

func TestFeaturesDocument(t *testing.T) {
	r := newRig(t, "true")
	var f ocifeatures.Features
	must(t, json.Unmarshal([]byte(r.ok("features")), &f))
	if len(f.Hooks) != 6 || len(f.Linux.Namespaces) != 8 || len(f.Linux.Capabilities) != 41 || len(f.Linux.MemoryPolicy.Modes) != 7 || len(f.Linux.MemoryPolicy.Flags) != 3 ||
		!*f.Linux.NetDevices.Enabled || !*f.Linux.MountExtensions.IDMap.Enabled || *f.Linux.IntelRdt.Enabled || !*f.Linux.Cgroup.Systemd {
		t.Errorf("%+v", f)
	}
	for _, o := range []string{"tmpcopyup", "idmap", "ridmap", "rro", "acl", "remount", "rshared", "nosymfollow"} {
		if !slices.Contains(f.MountOptions, o) {
			t.Errorf("no option %s", o)
		}
	}
	for _, a := range []string{"SCMP_ACT_NOTIFY", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"} {
		if !slices.Contains(f.Linux.Seccomp.Actions, a) {
			t.Errorf("no action %s", a)
		}
	}
	if !slices.Contains(f.Linux.Seccomp.SupportedFlags, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV") {
		t.Error(f.Linux.Seccomp.SupportedFlags)
	}
}

// What `spec --rootless` writes runs, and its root is whoever wrote it.
func TestSpecRootless(t *testing.T) {
	r := newRig(t, "true")
	must(t, os.Remove(r.bundle+"/config.json"))
	r.ok("spec", "--rootless", "-b", r.bundle)
	must(t, os.Chmod(filepath.Dir(r.bundle), 0o755))
	r.edit(func(s *specs.Spec) {
		s.Process.Terminal, s.Process.Args = false, []string{"sh", "-c", "cat /proc/self/uid_map; id -u; ls /sys/kernel >/dev/null && echo sys"}
	})
	out := r.ok("run", "-b", r.bundle, r.id)
	if strings.Join(strings.Fields(out), " ") != "0 0 1 0 sys" {
		t.Error(out)
	}
}

// A checkpoint needs criu: without it, and where it does not know the kernel, the error says so.
func TestCheckpoint(t *testing.T) {
	r := newRig(t, "sh", "-c", "i=0; while true; do i=$((i+1)); echo $i >/tmp/count; sleep 0.05; done")
	r.edit(func(s *specs.Spec) { s.Root.Readonly, s.Linux.Seccomp = false, nil })
	must(t, os.MkdirAll(r.bundle+"/rootfs/tmp", 0o755))
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	cmd := r.command("run", "-d", "-b", r.bundle, r.id)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
	must(t, cmd.Run())
	pid := r.state().Pid
	images := r.bundle + "/images"

	cmd = r.command("checkpoint", "--image-path", images, r.id)
	cmd.Env = append(slices.DeleteFunc(cmd.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }), "PATH=/nowhere")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "criu is not installed") {
		t.Errorf("%v: %s", err, out)
	}
	r.status(specs.StateRunning)
	done := make(chan int)
	go func() { done <- reap(pid) }()
	check, err := exec.Command("criu", "check").CombinedOutput()
	if err != nil {
		t.Logf("criu can't work here: %v: %s", err, check)
		out, code := r.run("checkpoint", "--image-path", images, r.id)
		if code != 1 || !strings.Contains(out, "cannot checkpoint container "+r.id+": criu") && !strings.Contains(out, "criu is not installed") {
			t.Errorf("exit %d: %s", code, out)
		}
		r.status(specs.StateRunning)
		r.fails("there is no checkpoint", "restore", "--image-path", r.bundle+"/nosuch", "-b", r.bundle, r.id+"x")
		must(t, unix.Kill(pid, unix.SIGKILL))
		<-done
		return
	}
	before := count(t, r, 1)
	r.ok("checkpoint", "--image-path", images, r.id)
	<-done
	r.fails("does not exist", "state", r.id)
	cmd = r.command("restore", "-d", "--image-path", images, "-b", r.bundle, r.id)
	out := r.bundle + "/restore.out"
	f, err := os.Create(out)
	must(t, err)
	defer f.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, f, f
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out)
		t.Fatalf("restore: %v: %s", err, text)
	}
	r.status(specs.StateRunning)
	restored := r.state().Pid
	count(t, r, before+1) // it goes on counting where it was
	r.ok("kill", r.id, "KILL")
	reap(restored)
	r.ok("delete", r.id)
}

// count waits until the container has counted that far.
func count(t *testing.T, r *rig, atLeast int) int {
	t.Helper()
	for range 10_000 {
		b, _ := os.ReadFile(r.bundle + "/rootfs/tmp/count")
		if n, _ := strconv.Atoi(strings.TrimSpace(string(b))); n >= atLeast {
			return n
		}
		unix.Poll(nil, 2)
	}
	t.Fatal("the container does not count")
	return 0
}
