// Package inside holds what a container finds of itself, for flags of docker run that change it: credentials, groups, mounts,
// environment, devices, names. The goldens in testdata were compared with Debian's docker (20.10) side by side; what differs
// from it on purpose is in docs/differences.md.
//
//	go test ./test/inside -update
package inside

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tare/internal/test/harness"
)

var update = flag.Bool("update", false, "write the golden files")

// runs are flags of docker run, by the golden file's name.
var runs = map[string]string{
	"default":    "",
	"cap-add":    "--cap-add SYS_TIME --cap-drop MKNOD",
	"cap-drop":   "--cap-drop ALL --cap-add CHOWN",
	"user":       "--user 1234",
	"user-group": "--user 1234:55 --group-add 77",
	"read-only":  "--read-only --tmpfs /t:size=1m,mode=700",
	"no-new":     "--security-opt no-new-privileges --security-opt seccomp=unconfined",
	"shm":        "--shm-size 10m",
	"ipc-none":   "--ipc none",
	"ipc-host":   "--ipc host",
	"net-none":   "--network none",
	"hostname":   "--hostname foo --domainname dd.example --env A=b --env EMPTY=",
	"unmasked":   "--security-opt systempaths=unconfined",
	"tty":        "-t",
	"ulimit":     "--ulimit nofile=100:200 --oom-score-adj 300 --workdir /made/here",
}

// probe prints what is the same on every machine.
const probe = `cat /proc/self/status
echo == limits; cat /proc/self/limits
echo == oom; cat /proc/self/oom_score_adj
echo == mounts; cat /proc/self/mountinfo
echo == env; env
echo == pwd; pwd
echo == etc; cat /etc/hostname
echo == dev; ls /dev`

var (
	hex64  = regexp.MustCompile(`[0-9a-f]{64}`)
	status = regexp.MustCompile(`^(Umask|Uid|Gid|Groups|NSpgid|SigBlk|SigIgn|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):`)
	limits = regexp.MustCompile(`^Max (open files|core file size)`)
)

// normal keeps of a probe's output what does not depend on the machine.
func normal(e *harness.Engine, out, id string) string {
	var b strings.Builder
	section := "status"
	for line := range strings.Lines(strings.ReplaceAll(out, "\r\n", "\n")) {
		line = strings.TrimRight(line, " \n")
		if name, ok := strings.CutPrefix(line, "== "); ok {
			section = name
			fmt.Fprintln(&b, line)
			continue
		}
		switch section {
		case "status":
			if !status.MatchString(line) {
				continue
			}
		case "limits":
			// Without --ulimit they are the engine's own.
			if !limits.MatchString(line) || !strings.Contains(line, " 200 ") {
				continue
			}
		case "mounts":
			f := strings.Fields(line)
			at, rest := f[4], strings.Join(f[6:], " ")
			_, rest, _ = strings.Cut(rest, "- ")
			// What is under /proc and /sys depends on the kernel; its masks have a test of their own.
			if strings.HasPrefix(at, "/proc/") || strings.HasPrefix(at, "/sys/") {
				continue
			}
			line = at + " " + f[5] + " " + strings.Fields(rest)[0]
			if at == "/dev/shm" {
				line += " " + strings.Fields(rest)[2]
			}
			if strings.HasPrefix(at, "/etc/") {
				line = at + " " + strings.Split(f[5], ",")[0]
			}
		}
		line = strings.ReplaceAll(line, id[:12], "ID")
		fmt.Fprintln(&b, hex64.ReplaceAllString(line, "ID"))
	}
	return strings.ReplaceAll(b.String(), e.Dir, "DIR")
}

func TestInside(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	for name, flags := range runs {
		t.Run(name, func(t *testing.T) {
			id := e.Docker(slices.Concat([]string{"create"}, strings.Fields(flags), []string{image, "sh", "-c", strings.ReplaceAll(probe, "\n", ";")})...)
			defer e.Docker("rm", "-f", id)
			e.Docker("start", id)
			e.Docker("wait", id)
			got := normal(e, e.Docker("logs", id), id)
			if name == "ipc-host" { // its size is the host's
				got = regexp.MustCompile(`(?m)^/dev/shm .*$`).ReplaceAllString(got, "/dev/shm of the host")
			}
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestNames checks who a container says it is when it shares names with the host or with another container.
func TestNames(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	e.Docker("run", "-d", "--name", "donor", "--hostname", "zed", image, "sleep", "1000")
	for flags, want := range map[string]string{"--network host": host, "--uts host": host, "--network container:donor": "zed"} {
		out := e.Docker(slices.Concat([]string{"run", "--rm"}, strings.Fields(flags), []string{image, "sh", "-c", "cat /proc/sys/kernel/hostname; echo $HOSTNAME; cat /etc/hostname"})...)
		if got := strings.Fields(out); !slices.Equal(got, []string{want, want, want}) {
			t.Errorf("%s: %v, want %s", flags, got, want)
		}
	}
}

// TestPropagation checks both ways over a shared mount, and that a mount that is not shared is refused.
func TestPropagation(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	dir := filepath.Join(e.Dir, "shared")
	for _, d := range []string{dir, filepath.Join(e.Dir, "plain")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("none", d, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(d, unix.MNT_DETACH) })
		if err := unix.Mount("", d, "", unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	e.Docker("run", "-d", "--name", "slave", "-v", dir+":/s:rslave", image, "sleep", "1000")
	e.Docker("run", "-d", "--name", "private", "-v", dir+":/s", image, "sleep", "1000")
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(sub, unix.MNT_DETACH)
	if err := os.WriteFile(sub+"/late", []byte("seen"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := e.Docker("exec", "slave", "cat", "/s/sub/late"); out != "seen" {
		t.Errorf("rslave: %q", out)
	}
	if r := e.Try(nil, "exec", "private", "cat", "/s/sub/late"); r.Code == 0 {
		t.Error("a mount reached a private bind")
	}
	for mode, want := range map[string]string{"rshared": "but it is not a shared mount", "rslave": "but it is not a shared or slave mount"} {
		plain := filepath.Join(e.Dir, "plain")
		if r := e.Try(nil, "run", "--rm", "-v", plain+":/s:"+mode, image, "true"); r.Code == 0 || !strings.Contains(r.Stderr, "path "+plain+" is mounted on "+plain+" "+want) {
			t.Errorf("%s: %+v", mode, r)
		}
	}
}

// TestMasked checks that what Docker hides is hidden, of what this kernel has.
func TestMasked(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	for _, file := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug", "/proc/latency_stats"} {
		if _, err := os.Stat(file); err != nil {
			continue
		}
		if out := e.Docker("run", "--rm", image, "cat", file); out != "" {
			t.Errorf("%s shows %.40q", file, out)
		}
	}
	for _, dir := range []string{"/proc/acpi", "/proc/scsi", "/proc/asound", "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/devices/system/cpu/cpu0/thermal_throttle"} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if out := e.Docker("run", "--rm", image, "ls", dir); out != "" {
			t.Errorf("%s shows %.40q", dir, out)
		}
	}
	for _, file := range []string{"/proc/sys/kernel/domainname", "/proc/sysrq-trigger"} {
		if r := e.Try(nil, "run", "--rm", image, "write", file, "x"); r.Code == 0 {
			t.Errorf("%s was written", file)
		}
	}
}
