// Package scripts holds the command line `tare` to the stock docker command line.
//
// A parity script (parity/*.sh) is a list of bash lines. Each line runs twice against the
// same engine, once with `docker` being the stock client and once with it being tare, each in a folder of its
// own, and must give the same standard output, standard error and exit code. $X differs between
// the two, so that names can be made with it. What differs by nature (ids, times, the
// program's name) is evened out before.
//
// A line that starts with "~" is compared by exit code and standard output only, "~~" by exit code only; the comment above says why.
// Lines that end in a backslash continue.
package scripts

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tare/internal/hub"
	"tare/internal/test/harness"
)

// program is one of the two command lines.
type program struct {
	path, mark, dir string
	other           string // the other one's path
}

type result struct {
	stdout, stderr string
	code           int
}

func TestParity(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("parity/*.sh")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	auth := authRegistry(t)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".sh"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			e := harness.Start(t)
			e.Tools()
			stock, ours := programs(t, e)
			for _, l := range lines(string(text)) {
				compare(t, e, l, stock, ours, auth)
			}
		})
	}
}

func programs(t *testing.T, e *harness.Engine) (stock, ours *program) {
	t.Helper()
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal("this test needs the stock docker command line: test/deps.sh installs it")
	}
	tare := filepath.Join(e.Bin, "tare")
	return &program{path: docker, mark: "qdq", dir: t.TempDir(), other: tare}, &program{path: tare, mark: "qtq", dir: t.TempDir(), other: docker}
}

// authRegistry is a registry that lets in only "me" with "secret".
func authRegistry(t *testing.T) string {
	h, err := hub.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		srv.Close()
		h.Close()
	})
	return strings.TrimPrefix(srv.URL, "http://")
}

// line is one step of a script.
type line struct {
	number     int
	text       string
	skipStderr bool
	skipStdout bool
}

func lines(text string) []line {
	var out []line
	var open bool
	for i, l := range strings.Split(text, "\n") {
		switch {
		case open:
			last := &out[len(out)-1]
			last.text += "\n" + l
		case l == "" || l[0] == '#':
			continue
		default:
			step := line{number: i + 1}
			if rest, ok := strings.CutPrefix(l, "~"); ok {
				step.skipStderr, l = true, rest
			}
			if rest, ok := strings.CutPrefix(l, "~"); ok {
				step.skipStdout, l = true, rest
			}
			step.text = strings.TrimSpace(l)
			out = append(out, step)
		}
		open = strings.HasSuffix(l, `\`)
	}
	return out
}

func compare(t *testing.T, e *harness.Engine, l line, stock, ours *program, auth string) {
	t.Helper()
	want, got := stock.run(t, e, l.text, auth), ours.run(t, e, l.text, auth)
	if os.Getenv("PARITY_SHOW") != "" {
		t.Logf("%s\n%d\n%s%s", l.text, want.code, want.stdout, want.stderr)
	}
	var diffs []string
	if want.code != got.code {
		diffs = append(diffs, "exit code")
	}
	if want.stdout != got.stdout && !l.skipStdout {
		diffs = append(diffs, "stdout")
	}
	if want.stderr != got.stderr && !l.skipStderr {
		diffs = append(diffs, "stderr")
	}
	if len(diffs) > 0 {
		t.Errorf("line %d: %s\ndiffers in %s\n--- docker: %d\n%s%s\n--- tare: %d\n%s%s", l.number, l.text, strings.Join(diffs, ", "),
			want.code, want.stdout, marked(want.stderr), got.code, got.stdout, marked(got.stderr))
	}
}

// marked puts "2> " before each line.
func marked(s string) string {
	if s == "" {
		return ""
	}
	return "2> " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n2> ")
}

// patience is how long a line may take.
const patience = 10 * time.Second

const prelude = `set -o pipefail
docker() { "$CLI" "$@"; }
nulls() { sed -E 's/,"[A-Za-z]+":(\[\]|\{\}|null|""|false|0)//g'; } # leaves empty fields out of JSON
`

func (p *program) run(t *testing.T, e *harness.Engine, script, auth string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", prelude+script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &errs, p.dir
	cmd.Env = append(e.Env(), "CLI="+p.path, "OTHER="+p.other, "X="+p.mark, "R="+e.Registry(), "AUTH="+auth, "DOCKER_CONFIG="+filepath.Join(p.dir, ".config"), "DOCKER_CLI_HINTS=false", "LC_ALL=C", "TZ=UTC")
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Errorf("%s does not end: %s", p.path, script)
	}
	return result{p.even(e, out.String()), programName.ReplaceAllString(p.even(e, errs.String()), "docker"), cmd.ProcessState.ExitCode()}
}

// evened is what differs by nature.
var evened = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "HEX64"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "HEX12"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d| [+-]\d{4} UTC)?`), "TIME"},
	{regexp.MustCompile(`([Ll]ess than a|[Aa]bout a|\d+) (second|minute)s?`), "SPAN"},
	{regexp.MustCompile(`\b[123]\d{9}\b`), "UNIX"},
	{regexp.MustCompile(`\b3[23]\d{3}\b`), "PORT"},
	{regexp.MustCompile(`(See|Run|SRun) '(docker [a-z ]*)--help' for`), "Run '$2--help' for"}, // the stock client has all three
	{regexp.MustCompile(`DEPRECATED: The legacy builder(.*\n)*?\n`), ""},
	{regexp.MustCompile(`(Sending build context to Docker daemon  ).*`), "${1}SIZE"}, // tars differ in their padding
	{regexp.MustCompile(` {2,}`), "  "},
}

func (p *program) even(e *harness.Engine, s string) string {
	s = strings.ReplaceAll(s, p.dir, "/DIR")
	s = strings.ReplaceAll(s, p.path, "docker")
	s = strings.ReplaceAll(s, e.Dir, "/ENGINE")
	s = p.marks().Replace(s)
	for _, r := range evened {
		s = r.re.ReplaceAllString(s, r.to)
	}
	return s
}

// marks evens out the names of both programs, ours and the other's.
func (p *program) marks() *strings.Replacer {
	other := "qdq"
	if p.mark == other {
		other = "qtq"
	}
	return strings.NewReplacer(p.mark, "qXq", other, "qYq", strings.ToUpper(p.mark), "QXQ", strings.ToUpper(other), "QYQ")
}

// programName is evened out in messages.
var programName = regexp.MustCompile(`\btare\b`)
