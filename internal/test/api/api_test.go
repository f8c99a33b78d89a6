// Package api holds the engine to what the stock docker command line, and Docker's Go client, expect of one.
package api

import (
	"encoding/json"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

func TestDockerReadsTheEngine(t *testing.T) {
	e := harness.Start(t)
	if v := e.Docker("version", "--format", "{{.Server.APIVersion}} {{.Server.Os}}"); !strings.HasSuffix(v, " linux") {
		t.Errorf("version: %q", v)
	}
	var info map[string]any
	if err := json.Unmarshal([]byte(e.Docker("info", "--format", "json")), &info); err != nil || info["Driver"] != "overlay2" || info["DockerRootDir"] != e.DataRoot {
		t.Errorf("info: %v %v", err, info)
	}
	for _, args := range []string{"ps -a", "images", "system df", "system df -v", "network ls", "volume ls", "network inspect bridge", "plugin ls", "container prune -f", "image prune -f", "volume prune -f", "network prune -f", "builder prune -f", "events --since 1s --until 0s"} {
		e.Docker(strings.Fields(args)...)
	}
	if r := e.Try(nil, "service", "ls"); r.Code != 1 || !strings.Contains(r.Stderr, "This node is not a swarm manager") {
		t.Errorf("service ls: %+v", r)
	}
}

func TestRun(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	if out := e.Docker("run", "--rm", image, "echo", "hi"); out != "hi" {
		t.Errorf("run: %q", out)
	}
	for _, tt := range []struct {
		args string
		code int
		err  string
	}{
		{"run --rm tools exit 3", 3, ""},
		{"run --rm tools nosuch", 127, "executable file not found"},
		{"run --rm tools /etc/notexec", 126, "permission denied"},
		{"run --rm localhost:1/nothing", 125, ""},
		{"run --rm --network nosuch tools true", 125, "network nosuch not found"},
		{"inspect nosuch", 1, "No such object: nosuch"},
		{"rm nosuch", 1, "No such container: nosuch"},
		{"rmi nosuch", 1, "No such image: nosuch"},
	} {
		r := e.Try(nil, strings.Fields(tt.args)...)
		if r.Code != tt.code || !strings.Contains(r.Stderr, tt.err) {
			t.Errorf("docker %s: code %d, want %d: %s", tt.args, r.Code, tt.code, r.Stderr)
		}
	}
	if r := e.Try(strings.NewReader("typed\n"), "run", "--rm", "-i", image, "cat"); r.Stdout != "typed\n" || r.Code != 0 {
		t.Errorf("run -i: %+v", r)
	}
	if r := e.Try(nil, "run", "--rm", image, "sh", "-c", "echo out; err oops"); r.Stdout != "out\n" || r.Stderr != "oops\n" {
		t.Errorf("two streams: %+v", r)
	}
	if out := e.Docker("run", "--rm", "-e", "A=b", "-w", "/tmp", "-u", "worker", image, "sh", "-c", "pwd; id; echo $A"); out != "/tmp\nuid=1000 gid=1000\nb" {
		t.Errorf("run -e -w -u: %q", out)
	}
	if out := e.Docker("ps", "-aq"); out != "" {
		t.Errorf("containers are left: %s", out)
	}
}
