// Package oci holds what the OCI runtime spec, its validation programs and runc's own tests ask of a runtime: one
// clause each, named by the document and section that it comes from, checked on a real kernel by the runtime's command line.
//
// A clause gets a bundle (a folder with config.json and a busybox root), changes the spec, and looks at what happens from inside
// or outside. It knows no runtime: TestClauses runs all clauses with tare-run, or the runtime of -runtime, TestPeers with what is
// installed beside it; docs/conformance.md is the table of that.
//
//	go test ./test/oci -runtime /usr/sbin/runc -run 'TestClauses/process'
//	go test ./test/oci -run TestPeers -update
package oci

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	runtimeFlag = flag.String("runtime", "", "the runtime to check; tare-run without")
	update      = flag.Bool("update", false, "run the peers too and write docs/conformance.md")
	compare     = flag.Bool("peers", false, "run the peers too")
)

const table = "../../docs/conformance.md"

// clause is one thing that a runtime must do.
type clause struct {
	name  string // GROUP/WHAT, with dashes
	from  string // document and section
	check func(c *check)
}

// clauses are all of them, in the order of the table.
func clauses() []clause {
	return slices.Concat(lifecycle(), commands(), process(), identity(), root(), mounts(), devices(), namespaces(), userNamespaces(), kernel(), filters(), cgroups(), hooks())
}

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == probeName {
		os.Exit(probe(os.Args[1:]))
	}
	flag.Parse()
	os.Exit(m.Run())
}

// TestClauses holds tare-run, or the runtime that is named, to every clause.
func TestClauses(t *testing.T) {
	rt := *runtimeFlag
	if rt == "" {
		rt = tareRun(t)
	}
	rig := newRig(t, rt)
	for _, cl := range clauses() {
		t.Run(cl.name, func(t *testing.T) {
			t.Parallel()
			if said := rig.run(cl); said != "" {
				t.Errorf("%s (%s): %s", cl.name, cl.from, said)
			}
		})
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	shape := regexp.MustCompile(`^[a-z]+/[a-z0-9-]+$`)
	for _, cl := range clauses() {
		if seen[cl.name] || !shape.MatchString(cl.name) || cl.from == "" {
			t.Errorf("clause %q (%s): the name must be new, GROUP/WHAT, and have a source", cl.name, cl.from)
		}
		seen[cl.name] = true
	}
}

// peers are the runtimes to compare with.
var peers = []string{"runc", "crun"}

// TestPeers holds the table to the clauses; with -peers or -update it runs them with the peers and fails where one of them does what
// tare-run does not.
func TestPeers(t *testing.T) {
	if *runtimeFlag != "" {
		t.Skip("one runtime was named")
	}
	if !*update {
		checkTable(t)
		if !*compare { // it takes a minute for each; make e2e does it
			return
		}
	}
	all := clauses()
	columns := map[string][]string{}
	names := []string{"tare-run"}
	columns["tare-run"] = runAll(t, newRig(t, tareRun(t)), all)
	versions := []string{}
	for _, p := range peers {
		path, err := exec.LookPath(p)
		if err != nil {
			t.Fatalf("%s is not installed (test/deps.sh)", p)
		}
		names = append(names, p)
		columns[p] = runAll(t, newRig(t, path), all)
		out, _ := exec.Command(path, "--version").Output()
		first, _, _ := strings.Cut(string(out), "\n")
		versions = append(versions, first)
	}
	for i, cl := range all {
		if columns["tare-run"][i] == "" {
			continue
		}
		for _, p := range peers {
			if columns[p][i] == "" {
				t.Errorf("%s passes in %s, but not here: %s", cl.name, p, columns["tare-run"][i])
			}
		}
	}
	if *update {
		writeTable(t, all, names, columns, versions)
	}
}

func runAll(t *testing.T, rig *rig, all []clause) []string {
	t.Helper()
	said := make([]string, len(all))
	var wg sync.WaitGroup
	next := make(chan int)
	for range 4 {
		wg.Go(func() {
			for i := range next {
				said[i] = rig.run(all[i])
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()
	return said
}

func writeTable(t *testing.T, all []clause, names []string, columns map[string][]string, versions []string) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "# What OCI runtimes do\n\nEach line is a clause of the OCI runtime spec, or of what its validation programs and runc's tests hold runtimes to, and a test in\n"+
		"`test/oci`. `make test` runs them with tare-run; this table is written by `go test ./test/oci -run TestPeers -update`, which fails\n"+
		"where a peer does what tare-run does not. Peers: %s, both Debian's, on Linux %s with cgroup %s.\n\n", strings.Join(versions, ", "), kernelVersion(), cgroupVersion())
	b.WriteString("| clause | from |")
	for _, n := range names {
		passed := 0
		for _, s := range columns[n] {
			if s == "" {
				passed++
			}
		}
		fmt.Fprintf(&b, " %s (%d of %d) |", n, passed, len(all))
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(names)) + "\n")
	for i, cl := range all {
		fmt.Fprintf(&b, "| %s | %s |", cl.name, cl.from)
		for _, n := range names {
			if columns[n][i] == "" {
				b.WriteString(" yes |")
			} else {
				b.WriteString(" **no** |")
				t.Logf("%s, %s: %s", n, cl.name, columns[n][i])
			}
		}
		b.WriteString("\n")
	}
	if err := os.WriteFile(table, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkTable holds the table to the clauses that there are, and to the rule.
func checkTable(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(line, "|")
		if len(f) == 3+2+len(peers) && strings.Contains(f[1], "/") {
			lines[strings.TrimSpace(f[1])] = f[3 : 4+len(peers)]
		}
	}
	for _, cl := range clauses() {
		f, ok := lines[cl.name]
		if !ok {
			t.Errorf("clause %s is not in docs/conformance.md: write it with -run TestPeers -update", cl.name)
			continue
		}
		delete(lines, cl.name)
		if strings.Contains(f[0], "no") {
			t.Errorf("docs/conformance.md says that tare-run fails %s", cl.name)
		}
	}
	for name := range lines {
		t.Errorf("docs/conformance.md tells of a clause %s that there is not", name)
	}
}

func kernelVersion() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}

func cgroupVersion() string {
	if unifiedCgroup() {
		return "v2"
	}
	return "v1"
}
