package container

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the golden files")

func requestOf(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	var f flags
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f.register(fs)
	if err := fs.Parse(append(args, "image", "cmd")); err != nil {
		return nil, err
	}
	req, err := f.request(fs, fs.Args())
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(req, "", "  ")
}

// TestRequests holds, for every flag of `run`, what it adds to the create request of a run without flags.
func TestRequests(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	t.Setenv("FROM_ENV", "taken")
	cases := map[string][]string{
		"add-host": {"--add-host", "a:1.2.3.4", "--add-host", "gw=host-gateway"}, "annotation": {"--annotation", "a=b"},
		"attach": {"-a", "stdout"}, "blkio": {"--blkio-weight", "300", "--device-read-bps", "/dev/sda:1mb", "--device-write-iops", "/dev/sda:10"},
		"cap": {"--cap-add", "NET_ADMIN", "--cap-drop", "ALL"}, "cpus": {"--cpus", "1.5", "--cpu-shares", "10", "--cpuset-cpus", "0-1"},
		"device":     {"--device", "/dev/null:/dev/x:rw", "--device", "/dev/zero"},
		"dns":        {"--dns", "1.1.1.1", "--dns-search", "x.y", "--dns-option", "ndots:2"},
		"entrypoint": {"--entrypoint", ""}, "env": {"-e", "A=b", "-e", "FROM_ENV", "-e", "UNSET_ONE"},
		"env-file":  {"--env-file", file("env", "# comment\nX=y z\nFROM_ENV\nNOT_THERE\n")},
		"expose":    {"--expose", "80-81/udp"},
		"health":    {"--health-cmd", "true", "--health-interval", "5s", "--health-retries", "2"},
		"no-health": {"--no-healthcheck"}, "hostname": {"-h", "web", "--domainname", "x"}, "init": {"--init"}, "interactive-tty": {"-it"},
		"label": {"-l", "a=b", "-l", "c"}, "log": {"--log-driver", "none", "--log-opt", "max-size=1m"},
		"memory":   {"-m", "64m", "--memory-swap", "-1", "--memory-reservation", "32m", "--shm-size", "1g"},
		"mount":    {"--mount", "type=bind,src=/a,dst=/b,ro,bind-propagation=rslave", "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770", "--mount", "dst=/anon"},
		"network":  {"--network", "net1", "--network-alias", "web", "--ip", "10.0.0.9", "--mac-address", "02:00:00:00:00:01"},
		"networks": {"--network", "name=a,alias=x,alias=y", "--network", "b"}, "network-host": {"--net", "host"},
		"namespaces": {"--pid", "host", "--ipc", "private", "--uts", "host", "--cgroupns", "private", "--userns", "host"},
		"oom":        {"--oom-kill-disable", "--oom-score-adj", "100"}, "pids": {"--pids-limit", "10"}, "platform": {"--platform", "linux/arm64/v8"},
		"privileged": {"--privileged"}, "publish": {"-p", "8080:80", "-p", "127.0.0.1:53:53/udp", "-p", "[::1]:9000-9001:90-91", "-p", "7000-7005:70", "-p", "443"},
		"publish-long": {"-p", "published=8080,target=80,protocol=udp"}, "publish-all": {"-P"}, "read-only": {"--read-only", "--tmpfs", "/run:size=1m"},
		"restart": {"--restart", "on-failure:3"}, "rm": {"--rm"}, "runtime": {"--runtime", "crun"},
		"security-opt": {"--security-opt", "no-new-privileges", "--security-opt", "seccomp=" + file("seccomp.json", "{\"defaultAction\":\n\"SCMP_ACT_ALLOW\"}")},
		"stop":         {"--stop-signal", "INT", "--stop-timeout", "3"}, "sysctl": {"--sysctl", "net.core.somaxconn=10"},
		"ulimit": {"--ulimit", "nofile=10:20"}, "user": {"-u", "1:2", "-w", "/x", "--group-add", "7"},
		"volume": {"-v", "/a:/b:ro", "-v", "named:/c", "-v", "/anon", "--volumes-from", "other:ro"},
	}
	base, err := requestOf(t)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "none", base)
	for name, args := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := requestOf(t, args...)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, name, diff(base, got))
		})
	}
}

// diff keeps the lines of b that are not in a, and those of a that b lacks, in order.
func diff(a, b []byte) []byte {
	count := map[string]int{}
	for l := range strings.SplitSeq(string(a), "\n") {
		count[strings.TrimSuffix(l, ",")]++
	}
	var out strings.Builder
	for l := range strings.SplitSeq(string(b), "\n") {
		if k := strings.TrimSuffix(l, ","); count[k] > 0 {
			count[k]--
		} else {
			out.WriteString("+" + k + "\n")
		}
	}
	for l := range strings.SplitSeq(string(a), "\n") {
		if k := strings.TrimSuffix(l, ","); count[k] > 0 {
			count[k]--
			out.WriteString("-" + k + "\n")
		}
	}
	return []byte(out.String())
}

func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "requests", name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (go test -update writes it anew):\n%s", path, d)
	}
}

func TestBadFlagsAreNamed(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-p x:80", "invalid hostPort"}, {"-p 1:2:3:4", "too many colons"}, {"-p 80-82:80-81", "invalid ranges"}, {"-p 80/xyz", "invalid proto"},
		{"--restart on-failure:x", "maximum retry count must be an integer"}, {"--restart always --rm", "both --restart and --rm"},
		{"--dns x", "IP address is not correctly formatted"}, {"--add-host x", "bad format for add-host"}, {"--mount type=bind,src=/a", "target is required"},
		{"--mount type=bind,dst=/a,tmpfs-size=1", "cannot mix"}, {"--mount dst=/a,wrong=1", "unexpected key"}, {"-a x", "valid streams are"},
		{"--network a --network a", "specified multiple times"}, {"--network a --network host", "conflicting options"}, {"--cpus x", "rational"},
		{"--device a:b:c:d", "invalid device"}, {"--health-interval x", "invalid argument"}, {"--no-healthcheck --health-cmd x", "conflicts"},
		{"--memory 1x", "invalid"}, {"--platform a/b/c/d", "cannot parse platform specifier"}, {"--ip x --network n", "not an ip address"},
	} {
		_, err := requestOf(t, strings.Fields(c.args)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.args, err, c.want)
		}
	}
}
