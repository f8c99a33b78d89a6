package build_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tare/internal/build/execute"
	"tare/internal/test/harness"
)

// folder makes a build context of name, content, name, content, …
func folder(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		p := filepath.Join(dir, files[i])
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(files[i+1]), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// layers lists the files of an image's newest n layers, by content of the store.
func newest(e *harness.Engine, ref string, n int) (out []string) {
	ids := strings.Fields(e.Docker("image", "inspect", ref, "--format", "{{range .RootFS.Layers}}{{.}} {{end}}"))
	for _, id := range ids[len(ids)-n:] {
		root := filepath.Join(e.DataRoot, "layers", strings.TrimPrefix(id, "sha256:"), "fs")
		filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
			if rel, _ := filepath.Rel(root, p); rel != "." {
				out = append(out, rel)
			}
			return nil
		})
	}
	return out
}

func TestRealBuild(t *testing.T) {
	e := harness.Start(t)
	tools := e.Tools()
	t.Run("scratch and a static program", func(t *testing.T) {
		dir := folder(t, "Dockerfile", "FROM scratch\nCOPY echo /bin/\nRUN [\"/bin/echo\", \"no shell here\"]\nENTRYPOINT [\"/bin/echo\"]\nCMD [\"hi\"]\n", "echo", string(harness.Toolbox(t)))
		out := e.Docker("build", "-t", "s", dir)
		if !strings.Contains(out, "no shell here\n") {
			t.Errorf("output: %s", out)
		}
		if out := e.Docker("run", "--rm", "s"); out != "hi" {
			t.Errorf("run: %q", out)
		}
		// The mount points of RUN (/proc, /etc/hosts, …) are not in the image.
		if got := strings.Join(newest(e, "s", 1), " "); got != "bin bin/echo" {
			t.Errorf("files: %s", got)
		}
	})
	t.Run("environment, user, folder, mounts", func(t *testing.T) {
		dir := folder(t, "Dockerfile", `FROM `+tools+`
ARG WHO=a
ENV E="b c"
WORKDIR /made/here
USER 12:34
RUN --mount=type=bind,target=/ctx cat /ctx/file
RUN id
RUN pwd
RUN env
USER 0
RUN --mount=type=cache,target=/cache write /cache/f kept
RUN --mount=type=cache,target=/cache cat /cache/f
RUN --mount=type=tmpfs,target=/t write /t/x y
RUN cat /etc/hosts
RUN write /made/file text
`, "file", "from the context")
		out := e.Docker("build", "-t", "m", "--build-arg", "WHO=z", "--add-host", "extra:10.9.8.7", dir)
		for _, want := range []string{"from the context", "uid=12 gid=34", "\n/made/here\n", "WHO=z\n", "E=b c\n", "kept", "10.9.8.7\textra"} {
			if !strings.Contains(out, want) {
				t.Errorf("output lacks %q:\n%s", want, out)
			}
		}
		if got := strings.Join(newest(e, "m", 1), " "); got != "made made/file" {
			t.Errorf("files of the last layer: %s", got)
		}
		if out := e.Docker("image", "inspect", "m", "--format", "{{.Config.Env}}"); strings.Contains(out, "WHO") || strings.Contains(out, "HOME") {
			t.Errorf("build-time variables are in the image: %s", out)
		}
	})
	t.Run("a rebuild does nothing, also after kill -9", func(t *testing.T) {
		dir := folder(t, "Dockerfile", "FROM "+tools+"\nRUN write /f 1\nCOPY a /a\nRUN cat /a\n", "a", "x")
		first := e.Docker("build", "-q", dir)
		e.Restart(true)
		if out := e.Docker("build", dir); strings.Count(out, "Using cache") != 3 {
			t.Errorf("after kill -9: %s", out)
		}
		if again := e.Docker("build", "-q", dir); again != first {
			t.Errorf("%s, first %s", again, first)
		}
	})
	t.Run("killed in a RUN", func(t *testing.T) {
		dir := folder(t, "Dockerfile", "FROM "+tools+"\nRUN sleep 1000\n")
		done := make(chan struct{})
		go func() {
			e.Try(nil, "build", dir)
			close(done)
		}()
		running := func() bool {
			for _, c := range e.Host.Cgroups() {
				if strings.Contains(c, execute.Prefix) {
					return true
				}
			}
			return false
		}
		e.Until("the step runs", running)
		e.Restart(true)
		<-done
		e.Until("the step is gone", func() bool { return !running() })
		if left, _ := os.ReadDir(filepath.Join(e.DataRoot, "build/tmp")); len(left) != 0 {
			t.Errorf("left in tmp: %v", left)
		}
	})
	t.Run("failures", func(t *testing.T) {
		for df, want := range map[string]string{
			"RUN exit 3":           "The command '/bin/sh -c exit 3' returned a non-zero code: 3",
			`RUN ["/nope"]`:        `exec: "/nope": stat /nope: no such file or directory`,
			"COPY x /":             "COPY failed: file not found in build context or excluded by .dockerignore: stat x: file does not exist",
			"RUN --network=x true": "",
		} {
			r := e.Try(nil, "build", folder(t, "Dockerfile", "FROM "+tools+"\n"+df+"\n"))
			if r.Code == 0 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s: %+v", df, r)
			}
		}
	})
}
