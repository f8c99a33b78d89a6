package api

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// A socket with a policy may list but neither create nor exec, whatever the client.
func TestLimitedHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "policy.json"), filepath.Join(dir, "limited.sock")
	if err := os.WriteFile(file, []byte(`{"allow": ["observe", "POST /containers/{id}/restart"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	e := harness.Start(t, "--limited-host", "unix://"+socket+"="+file)
	e.Tools()
	e.Docker("run", "-d", "--name", "web", "-e", "A=b", "tools", "sleep", "1000")
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v %v", st, err)
	}
	limited := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "docker", append([]string{"-H", "unix://" + socket}, args...)...).CombinedOutput()
		return string(out), err
	}
	for _, args := range []string{"ps", "inspect web", "images", "network ls", "volume ls", "info", "version", "top web", "stats --no-stream web", "diff web", "history tools", "system df", "restart -t 0 web"} {
		if out, err := limited(strings.Fields(args)...); err != nil {
			t.Errorf("docker %s: %v %s", args, err, out)
		}
	}
	for _, args := range []string{"run --rm tools true", "create tools", "exec web true", "cp web:/etc/passwd -", "export web", "logs web", "attach web", "rm -f web", "kill web", "pull x", "save tools", "tag tools x",
		"rmi tools", "volume create v", "network create n", "update -m 1g web", "commit web x", "system prune -f"} {
		out, err := limited(strings.Fields(args)...)
		said := strings.Contains(out, "is not allowed on this socket by policy "+file)
		if err == nil || !said && !strings.Contains(out, "received 403") { // docker attach tells the status only
			t.Errorf("docker %s: %v %s", args, err, out)
		}
	}
	if state := e.Docker("inspect", "-f", "{{.State.Status}}", "web"); state != "running" {
		t.Errorf("web is %s", state)
	}
}
