package netdevice

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

// Addresses go along, the device is up, names that are taken are an error, and a template is numbered.
func TestMove(t *testing.T) {
	holder := exec.Command("unshare", "-n", "sleep", "1000")
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	pid := strconv.Itoa(holder.Process.Pid)
	own, _ := os.Readlink("/proc/self/ns/net")
	for there := own; there == own; { // until unshare has done so
		var err error
		if there, err = os.Readlink("/proc/" + pid + "/ns/net"); err != nil {
			t.Fatal(err)
		}
	}
	inside := func(args ...string) string { return ip(t, append([]string{"-n", "holder" + pid}, args...)...) }
	if out, err := exec.Command("ip", "netns", "attach", "holder"+pid, pid).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "delete", "holder"+pid).Run() })
	name := "tnd" + pid
	other := "tne" + pid
	ip(t, "link", "add", name, "type", "veth", "peer", "name", other)
	t.Cleanup(func() {
		exec.Command("ip", "link", "delete", name).Run()
		exec.Command("ip", "link", "delete", other).Run()
	})
	ip(t, "address", "add", "192.0.2.7/24", "dev", name)
	ip(t, "address", "add", "2001:db8::7/64", "dev", name, "nodad")
	ip(t, "address", "add", "169.254.1.7/16", "scope", "link", "dev", name)
	ip(t, "link", "set", name, "up")
	if err := Move(holder.Process.Pid, map[string]specs.LinuxNetDevice{name: {Name: "lo"}}); err == nil || !strings.Contains(err.Error(), "file exists") {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := Move(holder.Process.Pid, map[string]specs.LinuxNetDevice{name: {Name: "net%d"}}); err != nil {
		t.Fatal(err)
	}
	out := inside("address", "show", "dev", "net0")
	for _, want := range []string{"192.0.2.7/24", "2001:db8::7/64", ",UP"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in %s", want, out)
		}
	}
	if strings.Contains(out, "169.254.1.7") {
		t.Errorf("an address of the link went along: %s", out)
	}
	if err := Move(holder.Process.Pid, map[string]specs.LinuxNetDevice{other: {Name: "net%d"}}); err != nil {
		t.Fatal(err)
	}
	if out := inside("link", "show", "net1"); !strings.Contains(out, "net1@") {
		t.Error(out)
	}
	for _, bad := range []string{"a/b", "averyveryverylongname", "..", "a b"} {
		if err := Move(holder.Process.Pid, map[string]specs.LinuxNetDevice{"lo": {Name: bad}}); err == nil || !strings.Contains(err.Error(), "is no name") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := Move(holder.Process.Pid, map[string]specs.LinuxNetDevice{"nosuch": {}}); err == nil {
		t.Error("a missing device was moved")
	}
}
