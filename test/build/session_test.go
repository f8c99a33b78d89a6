package build

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tare/internal/test/harness"
)

// tareIn runs `tare` in a folder, with a home of its own, and returns its output.
func tareIn(t *testing.T, e *harness.Engine, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(e.Bin, "tare"), append([]string{"--host", "unix://" + e.Socket}, args...)...)
	cmd.Dir, cmd.Env = dir, append(e.Env(), "HOME="+filepath.Join(e.Dir, "home"))
	return cmd
}

func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

func tree(t *testing.T, files ...string) string {
	t.Helper()
	var list []file
	for i := 0; i < len(files); i += 2 {
		list = append(list, file{name: files[i], content: files[i+1]})
	}
	return example{files: list}.folder(t)
}

// holding finds files that have a text in them.
func holding(root, text string) (found []string) {
	filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if data, err := os.ReadFile(p); err == nil && bytes.Contains(data, []byte(text)) {
				found = append(found, p)
			}
		}
		return nil
	})
	return found
}

// A secret reaches its step, and neither layers, cache, history, logs nor the disk, also when the engine is killed with it.
func TestSecrets(t *testing.T) {
	e := harness.Start(t)
	base(t, e.Try)
	const value = "hunter2-is-no-password"
	dir := tree(t, "Dockerfile", `FROM base:1
RUN --mount=type=secret,id=file md5sum < /run/secrets/file > /sum
RUN --mount=type=secret,id=env,env=TOKEN printf %s "$TOKEN" | md5sum >> /sum
`)
	secret := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(secret, []byte(value), 0o600)
	cmd := tareIn(t, e, dir, "build", "-t", "s", "--secret", "id=file,src="+secret, "--secret", "id=env", ".")
	cmd.Env = append(cmd.Env, "env="+value)
	must(t, cmd)
	sums := strings.Fields(e.Docker("run", "--rm", "s", "cat", "/sum"))
	if len(sums) != 4 || sums[0] != sums[2] {
		t.Errorf("the steps saw %q", sums)
	}
	check := func(when string) {
		t.Helper()
		if found := holding(e.Dir, value); len(found) > 0 {
			t.Errorf("%s: the secret is in %v", when, found)
		}
		if h := e.Docker("history", "--no-trunc", "s"); strings.Contains(h, value) {
			t.Errorf("%s: the secret is in the history", when)
		}
	}
	check("after the build")
	os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM base:1\nRUN --mount=type=secret,id=file --mount=type=secret,id=env,env=TOKEN sleep 998\n"), 0o644)
	cmd = tareIn(t, e, dir, "build", "--secret", "id=file,src="+secret, "--secret", "id=env", ".")
	cmd.Env = append(cmd.Env, "env="+value)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	e.Until("the step", func() bool { return exec.Command("pgrep", "-f", "^sleep 998$").Run() == nil })
	check("during a step")
	e.Restart(true)
	cmd.Wait()
	check("after a crash")
	left, _ := filepath.Glob("/dev/shm/tare-secrets-*/*/secret-*")
	for _, f := range left {
		if data, _ := os.ReadFile(f); string(data) == value {
			t.Errorf("left after a crash: %s", f)
		}
	}
}

// A step talks with the client's SSH agent.
func TestAgent(t *testing.T) {
	e := harness.Start(t)
	base(t, e.Try)
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 100)
				n, _ := c.Read(buf)
				c.Write(bytes.ToUpper(buf[:n]))
			}()
		}
	}()
	dir := tree(t, "Dockerfile", `FROM base:1
RUN --mount=type=ssh test -S "$SSH_AUTH_SOCK" && echo hello | nc -U "$SSH_AUTH_SOCK" > /got || echo $SSH_AUTH_SOCK > /got
RUN --mount=type=ssh,id=none test ! -e /run/buildkit/ssh_agent.0
`)
	must(t, tareIn(t, e, dir, "build", "-t", "a", "--ssh", "default="+socket, "."))
	if got := e.Docker("run", "--rm", "a", "cat", "/got"); got != "HELLO" && !strings.HasPrefix(got, "/run/buildkit/ssh_agent") {
		t.Errorf("got %q", got)
	}
	if out, err := tareIn(t, e, dir, "build", "--no-cache", "--ssh", "default=/nowhere", ".").CombinedOutput(); err == nil {
		t.Errorf("an agent that is not there: %s", out)
	}
}

// The other results of a build than an image.
func TestOutputs(t *testing.T) {
	e := harness.Start(t)
	base(t, e.Try)
	dir := tree(t, "Dockerfile", "FROM base:1 AS b\nRUN echo x > /f\nFROM scratch\nCOPY --from=b /f /out/f\nCOPY --chmod=640 a /a\n", "a", "text of a")
	before := e.Docker("images", "-qa")
	must(t, tareIn(t, e, dir, "build", "-o", "result", "."))
	if data, err := os.ReadFile(filepath.Join(dir, "result/a")); err != nil || string(data) != "text of a" {
		t.Errorf("%q, %v", data, err)
	}
	if st, err := os.Stat(filepath.Join(dir, "result/a")); err != nil || st.Mode() != 0o640 {
		t.Errorf("%v, %v", st, err)
	}
	os.RemoveAll(filepath.Join(dir, "result"))
	list := tareIn(t, e, dir, "build", "-o", "type=tar,dest=-", ".")
	list.Stderr = nil
	data, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	if m := members(t, data); string(m["out/f"]) != "x\n" {
		t.Errorf("the tar has %v", m)
	}
	if after := e.Docker("images", "-qa"); after != before {
		t.Errorf("images were made: %s", after)
	}
	must(t, tareIn(t, e, dir, "build", "-t", "x:1", "-o", "type=oci,dest="+filepath.Join(t.TempDir(), "x.tar"), "."))
	meta, iid := filepath.Join(t.TempDir(), "meta"), filepath.Join(t.TempDir(), "iid")
	must(t, tareIn(t, e, dir, "build", "--metadata-file", meta, "--iidfile", iid, "--progress", "rawjson", "."))
	id, _ := os.ReadFile(iid)
	if data, _ := os.ReadFile(meta); len(id) == 0 || !strings.Contains(string(data), string(id)) {
		t.Errorf("%s: %s", id, data)
	}
}

// A client that is killed in the middle of sending, and one that builds the same beside it, and what a changed file costs.
func TestKilledWhileSending(t *testing.T) {
	e := harness.Start(t)
	base(t, e.Try)
	dir := tree(t, "Dockerfile", "FROM base:1\nCOPY . /c/\n", "small", "1")
	big := bytes.Repeat([]byte("0123456789abcdef"), 4<<20)
	for i := range 4 {
		big[0] = byte(i)
		os.WriteFile(filepath.Join(dir, fmt.Sprint("big", i)), big, 0o644)
	}
	for range 3 {
		cmd := tareIn(t, e, dir, "build", "-t", "k", ".")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		e.Until("contents on their way", func() bool {
			packs, _ := filepath.Glob(filepath.Join(e.DataRoot, "build/contents/*.pack"))
			for _, p := range packs {
				if st, err := os.Stat(p); err == nil && st.Size() > 8<<20 {
					return true
				}
			}
			return cmd.ProcessState != nil
		})
		cmd.Process.Kill()
		cmd.Wait()
		e.Until("the end of the build", func() bool {
			left, _ := os.ReadDir(filepath.Join(e.DataRoot, "build/tmp"))
			return len(left) == 0
		})
	}
	var group sync.WaitGroup
	ids := make([]string, 4)
	for i := range ids {
		group.Go(func() {
			out, err := tareIn(t, e, dir, "build", "-q", ".").CombinedOutput()
			if ids[i] = string(out); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	group.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("different images of one folder: %q", ids)
		}
	}
	os.WriteFile(filepath.Join(dir, "small"), []byte("2"), 0o644)
	must(t, tareIn(t, e, dir, "build", "-t", "k", "."))
	if got := e.Docker("run", "--rm", "k", "cat", "/c/small"); got != "2" {
		t.Errorf("got %q", got)
	}
	if _, err := os.ReadDir(filepath.Join(e.DataRoot, "build/contents")); err != nil {
		t.Error(err)
	}
	e.Docker("builder", "prune", "-af")
	if left, _ := filepath.Glob(filepath.Join(e.DataRoot, "build/contents/*")); len(left) > 0 {
		t.Errorf("prune left %v", left)
	}
}

// --check finds what BuildKit's linter finds, and fails.
func TestCheck(t *testing.T) {
	e := harness.Start(t)
	base(t, e.Try)
	dir := tree(t, "Dockerfile", `FROM base:1 as Stage
maintainer x
WORKDIR rel
ENV OLD style
ENV SECRET_TOKEN=1
COPY hidden $UNDEF/
EXPOSE 80/TCP 1.2.3.4:5:6
CMD one
CMD two
FROM --platform=linux/amd64 base:1 AS scratch
`, ".dockerignore", "hidden\n", "hidden", "x")
	out, err := tareIn(t, e, dir, "build", "--check", "--target", "stage", ".").CombinedOutput()
	if err == nil {
		t.Error("no failure")
	}
	for _, rule := range []string{"FromAsCasing", "StageNameCasing", "ConsistentInstructionCasing", "MaintainerDeprecated", "WorkdirRelativePath", "LegacyKeyValueFormat",
		"SecretsUsedInArgOrEnv", "UndefinedVar", "ExposeProtoCasing", "ExposeInvalidFormat", "JSONArgsRecommended", "MultipleInstructionsDisallowed", "ReservedStageName", "CopyIgnoredFile"} {
		if !strings.Contains(string(out), "WARNING: "+rule+" - ") {
			t.Errorf("%s was not found", rule)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
	if out, err := tareIn(t, e, tree(t, "Dockerfile", "FROM base:1\nRUN true\n"), "build", "--check", ".").CombinedOutput(); err != nil || !strings.Contains(string(out), "no warnings found") {
		t.Errorf("%v: %s", err, out)
	}
}
