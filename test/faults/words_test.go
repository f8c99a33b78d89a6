package faults

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// TestMistakesOfPeople makes the mistakes that people make, with both command lines: the exit code and
// the sentence that tells what is wrong.
func TestMistakesOfPeople(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	e.Docker("create", "--name", "held", image)
	id := e.Docker("image", "inspect", "-f", "{{.Id}}", image)
	dir := t.TempDir()
	dockerfile := func(name, text string) string {
		sub := filepath.Join(dir, name)
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "Dockerfile"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return sub
	}
	r := e.Registry()
	clean := footprint(e)
	for _, tt := range []struct {
		args []string
		code int
		text []string // all in what is printed
	}{
		{words("run --rm", r+"/nosuch"), 125, []string{"/nosuch, repository does not exist or may require 'docker login'"}},
		{words("pull", r+"/nosuch"), 1, []string{"/nosuch, repository does not exist"}},
		{words("pull", r+"/tools:nosuch"), 1, []string{"manifest unknown"}},
		{words("pull localhost:1/nothing"), 1, []string{"connection refused"}},
		{words("pull UPPER"), 1, []string{"repository name", "must be lowercase"}},
		{words("run --rm tools nosuch"), 127, []string{`exec: "nosuch": executable file not found in $PATH`}},
		{words("run --rm tools /nosuch"), 127, []string{"/nosuch", "no such file or directory"}},
		{words("run --rm tools /etc/notexec"), 126, []string{"permission denied"}},
		{words("run --rm tools /etc"), 126, []string{"permission denied|is a directory"}},
		{words("run --rm --name held tools true"), 125, []string{`The container name "/held" is already in use by container`, "You have to remove (or rename) that container to be able to reuse that name."}},
		{words("run --rm -p", taken+":80", "tools true"), 125, []string{"address already in use|port is already allocated", taken}},
		{words("run --rm --network nosuch tools true"), 125, []string{"network nosuch not found"}},
		{words("run --rm -u nobodyknown tools true"), 125, []string{"unable to find user nobodyknown"}},
		{words("run --rm -w relative tools true"), 125, words("relative")},
		{words("run --rm -m 1k tools true"), 125, []string{"Minimum memory limit allowed is 6MB"}},
		{words("run --rm -v /nosuch/x:relative tools true"), 125, words("relative|absolute")},
		{words("run --rm --mount type=bind,src=/nosuch/x,dst=/x tools true"), 125, []string{"bind source path does not exist: /nosuch/x"}},
		{words("run --rm --cap-add NOSUCH tools true"), 125, words("NOSUCH")},
		{words("run --rm --restart always --name x tools true"), 125, words("restart|Restart|conflicting")},
		{words("exec held true"), 1, []string{"is not running"}},
		{words("exec nosuch true"), 1, []string{"No such container: nosuch"}},
		{words("start nosuch"), 1, []string{"No such container: nosuch"}},
		{words("logs nosuch"), 1, []string{"No such container: nosuch"}},
		{words("network create --subnet 999.0.0.0/8 n"), 1, words("999.0.0.0/8|invalid")},
		{words("network rm bridge"), 1, []string{"bridge is a pre-defined network and cannot be removed"}},
		{words("volume rm nosuch"), 1, words("no such volume|nosuch")},
		{words("rmi", id), 1, []string{"conflict: unable to delete", "must be forced"}},
		{words("tag nosuch x"), 1, []string{"No such image: nosuch"}},
		{words("load -i", filepath.Join(dockerfile("load", "no tar at all"), "Dockerfile")), 1, words("archive|tar")},
		{words("import", filepath.Join(dockerfile("import", "no tar at all"), "Dockerfile")), 1, words("archive|tar")},
		{words("build", dockerfile("instruction", "FROM tools\n\nRUNN true\n")), 1, []string{"line 3", "RUNN"}},
		{words("build", dockerfile("from", "RUN true\n")), 1, []string{"line 1|no build stage"}},
		{words("build", dockerfile("empty", "")), 1, []string{"cannot be empty|no instructions"}},
		{words("build", dockerfile("copy", "FROM tools\nCOPY nosuch /x\n")), 1, []string{"nosuch", "not found|no such file"}},
		{words("build", dockerfile("outside", "FROM tools\nCOPY ../../etc/passwd /x\n")), 1, []string{"etc/passwd", "not found|outside|forbidden|no such file"}},
		{words("build", dockerfile("run", "FROM tools\nRUN true\nRUN exit 42\n")), 42, []string{"returned a non-zero code: 42"}},
		{words("build", dockerfile("base", "FROM "+r+"/nosuch\n")), 1, []string{"/nosuch, repository does not exist"}},
		{words("build --target nosuch", dockerfile("target", "FROM tools AS a\n")), 1, words("nosuch")},
		{words("build -f Other", dockerfile("missing", "FROM tools\n")), 1, words("Other")},
		{words("build", dockerfile("flag", "FROM tools\nCOPY --nosuch=1 Dockerfile /\n")), 1, []string{"line 2|nosuch"}},
		{words("build", dockerfile("cycle", "FROM b AS a\nFROM tools AS b\nCOPY --from=c Dockerfile /\n")), 1, []string{"b|c"}},
		{words("build -t UPPER", dockerfile("tag", "FROM tools\n")), -1, words("lowercase|invalid")},
	} {
		for _, cli := range []string{"docker", "tare"} {
			run := e.Try
			if cli == "tare" {
				run = e.Tare
			}
			got := run(nil, tt.args...)
			line := cli + " " + strings.ReplaceAll(strings.Join(tt.args, " "), dir, "…")
			if got.Code != tt.code && (tt.code >= 0 || got.Code == 0) {
				t.Errorf("%s: exit code %d, want %d: %s", line, got.Code, tt.code, got.Stderr)
			}
			for _, want := range tt.text {
				if !oneOf(got.Stderr+got.Stdout, want) {
					t.Errorf("%s: %q is not in: %s%s", line, want, got.Stdout, got.Stderr)
				}
			}
			if strings.Contains(got.Stderr, "panic") || strings.Contains(got.Stderr, "goroutine ") {
				t.Errorf("%s: %s", line, got.Stderr)
			}
		}
	}
	e.Docker("builder", "prune", "-af")
	e.Docker("image", "prune", "-f")
	nothingNew(e, "mistakes", clean)
	alive(e, image)
}

// words splits what has spaces and joins the lists.
func words(parts ...string) []string {
	var list []string
	for _, p := range parts {
		if filepath.IsAbs(p) {
			list = append(list, p)
			continue
		}
		list = append(list, strings.Fields(p)...)
	}
	return list
}

// oneOf tells whether one of the alternatives, separated by |, is in the text.
func oneOf(text, alternatives string) bool {
	for _, a := range strings.Split(alternatives, "|") {
		if strings.Contains(text, a) {
			return true
		}
	}
	return false
}

// TestRequestsNobodyShouldSend sends what no client sends.
func TestRequestsNobodyShouldSend(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("create", "--name", "held", image)
	clean := footprint(e)
	proxy := e.Socket
	const js = "application/json"
	big := func(prefix string, n int, suffix string) io.Reader {
		return io.MultiReader(strings.NewReader(prefix), io.LimitReader(letters{}, int64(n)), strings.NewReader(suffix))
	}
	for _, tt := range []struct {
		name, method, path, contentType string
		body                            io.Reader
		status                          int
		text                            string
	}{
		{"broken JSON", "POST", "/containers/create", js, strings.NewReader(`{"Image":`), 400, "invalid JSON|unexpected EOF"},
		{"JSON of another type", "POST", "/containers/create", js, strings.NewReader(`[1,2]`), 400, "invalid JSON"},
		{"a member of another type", "POST", "/containers/create", js, strings.NewReader(`{"Image":7}`), 400, "invalid JSON"},
		{"two values", "POST", "/containers/create", js, strings.NewReader(`{"Image":"tools"}{}`), 400, "unexpected content after JSON"},
		{"no body", "POST", "/containers/create", js, nil, 400, "EOF|config cannot be empty|no image"},
		{"null", "POST", "/containers/create", js, strings.NewReader("null"), 400, "config cannot be empty|no image"},
		{"no JSON at all", "POST", "/containers/create", "application/x-tar", strings.NewReader("{}"), 400, "unsupported Content-Type"},
		{"a body of 9 MiB", "POST", "/containers/create", js, big(`{"Image":"tools","Labels":{"x":"`, 9<<20, `"}}`), 413, "too large"},
		{"a deep body", "POST", "/containers/create", js, strings.NewReader(strings.Repeat("[", 20000)), 400, "invalid JSON"},
		{"exec without a command", "POST", "/containers/held/exec", js, strings.NewReader(`{}`), 400, "No exec command specified"},
		{"an invalid name", "POST", "/containers/create?name=a/../b", js, strings.NewReader(`{"Image":"tools"}`), 400, "Invalid container name"},
		{"an unknown image", "POST", "/containers/create", js, strings.NewReader(`{"Image":"nosuch"}`), 404, "No such image: nosuch:latest"},
		{"an invalid image name", "POST", "/containers/create", js, strings.NewReader(`{"Image":"UPPER/../x"}`), 400, "invalid reference format|lowercase"},
		{"an unknown network mode", "POST", "/containers/create", js, strings.NewReader(`{"Image":"tools","HostConfig":{"NetworkMode":"container:"}}`), 400, ""},
		{"a mount in /proc", "POST", "/containers/create", js, strings.NewReader(`{"Image":"tools","HostConfig":{"Binds":["/tmp:/"]}}`), 400, "destination can't be '/'"},
		{"a volume's name that is a path", "POST", "/volumes/create", js, strings.NewReader(`{"Name":"../../x"}`), 400, "includes invalid characters|invalid"},
		{"a network's name that is a path", "POST", "/networks/create", js, strings.NewReader(`{"Name":"../../x"}`), 400, ""},
		{"an unknown network driver", "POST", "/networks/create", js, strings.NewReader(`{"Name":"x","Driver":"nosuch"}`), 404, "plugin \"nosuch\" not found|nosuch"},
		{"a version to come", "GET", "/v9.99/info", "", nil, 400, "client version 9.99 is too new. Maximum supported API version is"},
		{"a version long gone", "GET", "/v1.1/info", "", nil, 400, "client version 1.1 is too old. Minimum supported API version is"},
		{"a version that is none", "GET", "/vX.Y/info", "", nil, 404, "page not found"},
		{"no such path", "GET", "/nosuch", "", nil, 404, "page not found"},
		{"no such method", "PATCH", "/containers/json", "", nil, 404, "page not found|not allowed"},
		{"broken filters", "GET", "/containers/json?filters={", "", nil, 400, "filter"},
		{"unknown filters", "GET", "/containers/json?filters=" + `%7B%22nosuch%22%3A%5B%22x%22%5D%7D`, "", nil, 400, "invalid filter 'nosuch'|invalid filter"},
		{"a broken query", "GET", "/containers/json?all=%zz", "", nil, 400, ""},
		{"a number that is none", "GET", "/containers/json?limit=x", "", nil, 400, ""},
		{"a number that is none, in logs", "GET", "/containers/held/logs?stdout=1&since=x", "", nil, 400, "since"},
		{"a signal that is none", "POST", "/containers/held/kill?signal=NOSUCH", "", nil, 400, "NOSUCH"},
		{"logs of no stream", "GET", "/containers/held/logs", "", nil, 400, "you must choose at least one stream"},
		{"a broken login", "POST", "/auth", js, strings.NewReader(`{"auth`), 400, "JSON"},
		{"an archive that is none", "PUT", "/containers/held/archive?path=/tmp", "application/x-tar", strings.NewReader(strings.Repeat("no tar ", 200)), 400, "tar"},
		{"an archive to nowhere", "PUT", "/containers/held/archive?path=/nosuch", "application/x-tar", contextTar(map[string]string{"f": "x"}), 404, "nosuch"},
		{"a context that is none", "POST", "/build", "application/x-tar", strings.NewReader(strings.Repeat("no tar ", 200)), 400, "tar"},
		{"a context that ends", "POST", "/build", "application/x-tar", io.LimitReader(contextTar(map[string]string{"Dockerfile": "FROM tools\n", "f": strings.Repeat("x", 4000)}), 1300), 400, "unexpected EOF|broken|tar"},
		{"a context without a Dockerfile", "POST", "/build", "application/x-tar", contextTar(map[string]string{"f": "x"}), 400, "Dockerfile"},
		{"a Dockerfile outside", "POST", "/build?dockerfile=../../../../etc/passwd", "application/x-tar", contextTar(map[string]string{"Dockerfile": "FROM tools\n"}), 400, "passwd|outside|Cannot locate"},
		{"build args that are none", "POST", "/build?buildargs=x", "application/x-tar", contextTar(map[string]string{"Dockerfile": "FROM tools\n"}), 400, ""},
		{"an id of a removal that is a path", "DELETE", "/containers/..%2F..%2Fimages", "", nil, 404, ""},
	} {
		if tt.status == 413 { // the answer comes before the end of the request, which the proxy does not follow
			e.Socket = e.Direct
		}
		a := must(e, tt.method, tt.path, tt.contentType, tt.body)
		e.Socket = proxy
		if a.status != tt.status || !oneOf(a.body, tt.text) {
			t.Errorf("%s: %d %.300s, want %d %s", tt.name, a.status, a.body, tt.status, tt.text)
		}
		if tt.status >= 400 && !strings.Contains(a.body, `"message":"`) {
			t.Errorf("%s: no message: %.300s", tt.name, a.body)
		}
	}
	// Not HTTP, half of it, and connections that end in the middle of a body.
	for _, text := range []string{"nonsense\r\n\r\n", "GET /info HTTP/9.9\r\n\r\n", "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"Ima",
		"POST /build HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nDockerfile", "POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /containers/held/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"} {
		c, err := net.Dial("unix", e.Direct)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, text)
		c.Close()
	}
	nothingNew(e, "bad requests", clean)
	alive(e, image)
}

// letters is an endless text.
type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
