package scripts

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// The shell asks `tare __complete` what may follow; the scripts for bash, zsh and fish all do.
func TestCompletion(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("run", "-d", "--name", "upone", image, "sleep", "100")
	e.Docker("create", "--name", "made", image)
	e.Docker("network", "create", "netone")
	e.Docker("volume", "create", "volone")
	for _, c := range []struct {
		words string // the last one is being typed; "_" is empty
		want  string
		not   string
	}{
		{"ru", "run", "rm"},
		{"container _", "prune ls inspect", "images"},
		{"network _", "connect", ""},
		{"run --netw", "--network", ""},
		{"run _", "tools:latest", ""},
		{"run --network _", "netone bridge host none", ""},
		{"run --pull _", "always missing never", ""},
		{"run --restart _", "always on-failure unless-stopped no", ""},
		{"run --volumes-from _", "upone made", ""},
		{"create --rm _", "tools:latest", ""},
		{"exec _", "upone", "made"},
		{"stop _", "upone", "made"},
		{"start _", "made", "upone"},
		{"rm _", "upone made", ""},
		{"logs _", "upone made", ""},
		{"kill _", "upone", "made"},
		{"attach _", "upone", "made"},
		{"kill --signal _", "SIGKILL SIGTERM", ""},
		{"cp _", "upone: made:", ""},
		{"inspect _", "upone made tools:latest netone volone", ""},
		{"inspect --type _", "container image network volume", ""},
		{"network rm _", "netone", ""},
		{"network connect _", "netone", "upone"},
		{"network connect netone _", "upone made", "netone"},
		{"volume rm _", "volone", ""},
		{"rmi _", "tools:latest", ""},
		{"push _", "tools:latest", ""},
		{"tag _", "tools:latest", ""},
		{"ps --filter _", "status= name= label=", ""},
		{"rename _", "upone", ""},
	} {
		words := strings.Fields(strings.ReplaceAll(c.words, "_", "\x00"))
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "\x00", "")
		}
		cmd := exec.Command(e.Bin+"/tare", append([]string{"__complete"}, words...)...)
		cmd.Env = e.Env()
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v", c.words, err)
		}
		var got []string
		for l := range strings.Lines(string(out)) {
			name, _, _ := strings.Cut(strings.TrimSpace(l), "\t")
			got = append(got, name)
		}
		for _, w := range strings.Fields(c.want) {
			if !slices.Contains(got, w) {
				t.Errorf("%s: no %q in %q", c.words, w, got)
			}
		}
		if c.not != "" && slices.Contains(got, c.not) {
			t.Errorf("%s: offers %q: %q", c.words, c.not, got)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		out, err := exec.Command(e.Bin+"/tare", "completion", shell).Output()
		if err != nil || !strings.Contains(string(out), "__complete") {
			t.Errorf("completion %s: %v, %d bytes", shell, err, len(out))
		}
		if path, err := exec.LookPath(shell); err == nil {
			check := exec.Command(path, "-n", "/dev/stdin")
			check.Stdin = strings.NewReader(string(out))
			if msg, err := check.CombinedOutput(); err != nil {
				t.Errorf("%s does not read its completion: %v %s", shell, err, msg)
			}
		}
	}
}
