// Package traces holds the flows of ARCHITECTURE.md by golden traces: each test starts a real engine, runs a flow with the
// command line, and compares which box did what, in what order, with testdata/*.txt. Those files are the flows' documentation:
//
//	server   POST      /containers/create         a box of the top floor; every step is indented by its box's floor
//	  engine   create    container1               ids and digests are numbered as they come
//	    ‖ network  prepare   container1           what runs at the same time: each branch begins with ‖
//	    ‖ runtime  create    container1           and goes on with │
//	    network  join      container1             after all of them
//
// An operation that begins otherwise than at the door is a fact from below, such as an exit. Steps are recorded as they begin
// (package trace). To accept a change of a flow:
//
//	go test ./test/traces -update
package traces

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tare/internal/test/harness"
	"tare/internal/test/images"
)

var update = flag.Bool("update", false, "write the golden files")

// flow is one golden file in the making.
type flow struct {
	t        *testing.T
	e        *harness.Engine
	file     string // the engine's trace
	about    string
	commands []command
	names    map[string]string // of what differs from run to run, besides ids
}

// command is one call of the command line.
type command struct {
	line string
	from int // where it begins in the trace, in bytes
}

func begin(t *testing.T, about string) *flow {
	t.Helper()
	f := &flow{t: t, file: filepath.Join(t.TempDir(), "trace"), about: about, names: map[string]string{}}
	t.Setenv("TARE_TRACE", f.file)
	f.e = harness.Start(t)
	return f
}

// tare runs a command that belongs to the flow.
func (f *flow) tare(args ...string) {
	f.t.Helper()
	f.commands = append(f.commands, command{"tare " + strings.Join(args, " "), len(f.read())})
	if r := f.e.Tare(nil, args...); r.Code != 0 {
		f.t.Fatalf("tare %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
}

func (f *flow) read() string {
	f.t.Helper()
	data, err := os.ReadFile(f.file)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(data)
}

// end stops the engine, which thereby ends what it does in the background, and compares.
func (f *flow) end(name string) {
	f.t.Helper()
	f.e.Stop()
	floors, err := readFloors("../../ARCHITECTURE.md")
	if err != nil {
		f.t.Fatal(err)
	}
	ops, err := parse(f.read())
	if err != nil {
		f.t.Fatal(err)
	}
	r := renderer{floors: floors, numbers: map[string]string{}, last: map[string]int{}}
	r.out.WriteString(f.about + "\n")
	for i, c := range f.commands {
		r.out.WriteString("\n$ " + c.line + "\n")
		for _, op := range ops {
			if op.at >= c.from && (i+1 == len(f.commands) || op.at < f.commands[i+1].from) {
				r.out.WriteString("\n")
				r.lane(op, "", 0)
			}
		}
	}
	if r.err != nil {
		f.t.Fatal(r.err)
	}
	got := r.out.String()
	for random, fixed := range f.names {
		got = strings.ReplaceAll(got, random, fixed)
	}
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			f.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	if got != string(want) {
		f.t.Errorf("the flow %s is not what %s says (-update accepts it):\n%s", name, path, diff(string(want), got))
	}
}

func TestRun(t *testing.T) {
	f := begin(t, "`run` is four calls at the door; who waits hears of the exit before anything is cleaned up.")
	image := f.e.Tools()
	f.tare("run", image, "echo", "hi")
	f.end("run")
}

func TestRunAndRemove(t *testing.T) {
	f := begin(t, "`run --rm` answers when name, record and holds are gone; the runtime forgets the process after the answer.")
	image := f.e.Tools()
	f.tare("run", "--rm", image, "echo", "hi")
	f.end("run-rm")
}

func TestExec(t *testing.T) {
	f := begin(t, "`exec` is one call to the runtime, which starts the program with its streams connected; the exit is known before the client asks for its code.")
	image := f.e.Tools()
	f.e.Docker("run", "-d", "--name", "box", image, "sleep", "600")
	f.tare("exec", "box", "echo", "hi")
	f.end("exec")
}

func TestPull(t *testing.T) {
	f := begin(t, "`pull` fetches config and all layers at once, and unpacks each layer while it arrives; the name comes last.")
	img, err := images.Generate(images.Options{Layers: 3, FilesPerLayer: 4, FileSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	registry := f.e.Registry()
	if err := img.Push("http://"+registry, "three", "latest"); err != nil {
		t.Fatal(err)
	}
	f.names[registry] = "registry"
	f.tare("pull", registry+"/three")
	f.tare("pull", registry+"/three")
	f.end("pull")
}

func TestBuild(t *testing.T) {
	f := begin(t, "`build` makes a graph, does each step when those it needs are done, exports and names; the second build finds all in the cache.")
	f.e.Tools()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Dockerfile": `FROM tools AS left
RUN ["write", "/left", "l"]
FROM tools AS right
RUN ["write", "/right", "r"]
FROM tools
COPY page.txt /page.txt
COPY --from=left /left /
COPY --from=right /right /
CMD ["cat", "/page.txt"]
`,
		"page.txt": "hello\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.names[dir] = "."
	f.tare("build", "-t", "page", dir)
	f.tare("build", "-t", "page", dir)
	f.end("build")
}
