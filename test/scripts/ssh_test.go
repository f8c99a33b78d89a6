package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// remote stands for ssh(1): it runs the command as sshd does, by the login shell, with the words joined by blanks.
const remote = `#!/bin/sh
echo "$*" >>"$SSH_CALLS"
while [ "$1" != -- ]; do shift; done
shift 2
unset TARE_HOST DOCKER_HOST
export DOCKER_HOST="$REMOTE_ENGINE"
exec sh -c "$*"
`

func TestEngineBehindSSH(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	e.Tools()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(remote), 0o755); err != nil {
		t.Fatal(err)
	}
	calls := filepath.Join(dir, "calls")
	ssh := func(host, stdin string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(e.Bin, "tare"), append([]string{"--host", host}, args...)...)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+e.Bin+":"+os.Getenv("PATH"), "SSH_CALLS="+calls, "REMOTE_ENGINE=unix://"+e.Socket)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("tare -H %s %v: %v\n%s", host, args, err, out)
		}
		return string(out)
	}
	if out := ssh("ssh://me@far:2222", "over there\n", "run", "-i", "--rm", "tools", "cat"); out != "over there\n" {
		t.Errorf("cat says %q", out)
	}
	if data, err := os.ReadFile(calls); err != nil || !strings.Contains(string(data), "-l me -p 2222") || !strings.Contains(string(data), "-- far") {
		t.Errorf("ssh was called with %s (%v)", data, err)
	}
	socket := e.Socket
	if out := ssh("ssh://far"+socket, "", "images", "--format", "{{.Repository}}"); !strings.HasSuffix(out, "tools\n") {
		t.Errorf("images behind a socket's path: %q", out)
	}
}
