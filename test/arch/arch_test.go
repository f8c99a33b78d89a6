// Package arch holds the project's ratchets: what ARCHITECTURE.md promises about
// the shape of the code, checked on the source itself.
package arch

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module     = "tare"
	maxMethods = 25
	maxLines   = 5000
)

// exemptions from a ratchet, each with its reason.
var exemptions = map[string]string{
	"internal/runtime/launch.init": "locks the stage to the process's first thread before the Go runtime can start it on another: namespaces and credentials are per thread",
}

type box struct {
	path  string
	floor int
	may   []string // boxes; "*" is all
}

type pkg struct {
	dir     string // relative to the root
	files   []*ast.File
	tests   []*ast.File
	lines   int
	methods map[string]int
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above this test")
		}
		dir = filepath.Dir(dir)
	}
}

// table reads the floors from ARCHITECTURE.md: | Floor | Box | Does | May import |
func table(t *testing.T, root string) []box {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var boxes []box
	inside := false
	for sc := bufio.NewScanner(f); sc.Scan(); {
		cells := strings.Split(sc.Text(), "|")
		if len(cells) != 6 {
			inside = false
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if cells[1] == "Floor" {
			inside = true
			continue
		}
		floor, err := strconv.Atoi(cells[1])
		if !inside || err != nil {
			continue
		}
		var may []string
		if cells[4] != "-" {
			may = strings.Fields(cells[4])
		}
		boxes = append(boxes, box{path: cells[2], floor: floor, may: may})
	}
	if len(boxes) < 5 {
		t.Fatalf("ARCHITECTURE.md: found only %d boxes in the floors table", len(boxes))
	}
	return boxes
}

// boxOf finds the box that a package (relative to the module) lies in.
func boxOf(boxes []box, rel string) (box, bool) {
	var found box
	ok := false
	for _, b := range boxes {
		if (rel == b.path || strings.HasPrefix(rel, b.path+"/")) && len(b.path) > len(found.path) {
			found, ok = b, true
		}
	}
	return found, ok
}

func load(t *testing.T, root string) []*pkg {
	t.Helper()
	byDir := map[string]*pkg{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); path != root && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin" || n == "vendor") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, filepath.Dir(path))
		p := byDir[rel]
		if p == nil {
			p = &pkg{dir: rel, methods: map[string]int{}}
			byDir[rel] = p
		}
		if strings.HasSuffix(path, "_test.go") {
			p.tests = append(p.tests, file)
			return nil
		}
		p.files = append(p.files, file)
		if !ast.IsGenerated(file) {
			p.lines += strings.Count(string(src), "\n")
		}
		for _, decl := range file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv != nil {
				p.methods[receiver(fn)]++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []*pkg
	for _, p := range byDir {
		pkgs = append(pkgs, p)
	}
	slices.SortFunc(pkgs, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	return pkgs
}

func receiver(fn *ast.FuncDecl) string {
	e := fn.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return fmt.Sprintf("%T", e)
		}
	}
}

func exempt(key string) bool { _, ok := exemptions[key]; return ok }

func TestImportsGoDown(t *testing.T) {
	root := root(t)
	boxes := table(t, root)
	for _, p := range load(t, root) {
		testOnly := strings.HasPrefix(p.dir, "internal/test") || strings.HasPrefix(p.dir, "test") || strings.HasPrefix(p.dir, "bench")
		if testOnly {
			continue
		}
		from, ok := boxOf(boxes, p.dir)
		if !ok && len(p.files) > 0 {
			t.Errorf("%s is in no box of ARCHITECTURE.md", p.dir)
			continue
		}
		for _, f := range p.files {
			for _, imp := range f.Imports {
				path, _ := strconv.Unquote(imp.Path.Value)
				rel, ours := strings.CutPrefix(path, module+"/")
				if !ours {
					continue
				}
				to, ok := boxOf(boxes, rel)
				switch {
				case !ok:
					t.Errorf("%s imports %s, which is in no box", p.dir, rel)
				case to.path == from.path:
				case from.may != nil && slices.Contains(from.may, "*"):
				case to.floor >= from.floor || !slices.Contains(from.may, to.path):
					t.Errorf("%s (box %s, floor %d) imports %s (box %s, floor %d)", p.dir, from.path, from.floor, rel, to.path, to.floor)
				}
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range load(t, root(t)) {
		var with []string
		for _, f := range p.files {
			if f.Doc != nil && !strings.HasPrefix(f.Doc.Text(), "Code generated") {
				with = append(with, f.Name.Name)
			}
		}
		if len(p.files) > 0 && len(with) != 1 {
			t.Errorf("%s has %d package comments, want 1", p.dir, len(with))
		}
	}
}

func TestMethodsPerType(t *testing.T) {
	for _, p := range load(t, root(t)) {
		for typ, n := range p.methods {
			if key := p.dir + "." + typ; n > maxMethods && !exempt(key) {
				t.Errorf("%s has %d methods, at most %d: split it", key, n, maxMethods)
			}
		}
	}
}

func TestLinesPerPackage(t *testing.T) {
	for _, p := range load(t, root(t)) {
		if p.lines > maxLines && !exempt(p.dir) {
			t.Errorf("%s has %d lines, at most %d: split it", p.dir, p.lines, maxLines)
		}
	}
}

func TestNoRegisteringInit(t *testing.T) {
	for _, p := range load(t, root(t)) {
		for _, f := range p.files {
			for _, decl := range f.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" && !exempt(p.dir+".init") {
					t.Errorf("%s has an init function: list implementations in one function, prepare state where it is used", p.dir)
				}
			}
		}
	}
}

func TestPackageNames(t *testing.T) {
	for _, p := range load(t, root(t)) {
		switch name := filepath.Base(p.dir); name {
		case "util", "utils", "common", "helper", "helpers", "misc":
			t.Errorf("%s: a package is named after what it provides, not %q", p.dir, name)
		}
	}
}

// The supervisor lives as long as the containers: it must stay small, so the
// programs' dependencies are held to what they are for.
func TestProgramDependencies(t *testing.T) {
	root := root(t)
	forbidden := map[string][]string{
		"tare-run":      {"net/http", "crypto/tls", module + "/internal/engine", module + "/internal/image", module + "/internal/network"},
		"tare":          {module + "/internal/engine", module + "/internal/image", module + "/internal/network", module + "/internal/runtime", module + "/internal/build", "github.com/vishvananda/netlink"},
		"tare-registry": {module + "/internal/engine", module + "/internal/runtime", module + "/internal/network", module + "/internal/build"},
		"tared":         {module + "/internal/cli", module + "/internal/hub", "testing"},
	}
	for prog, bad := range forbidden {
		cmd := exec.Command("go", "list", "-deps", "./cmd/"+prog)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("go list -deps ./cmd/%s: %v\n%s", prog, err, out)
			continue
		}
		deps := strings.Fields(string(out))
		for _, b := range bad {
			for _, d := range deps {
				if d == b || strings.HasPrefix(d, b+"/") && strings.HasPrefix(b, module) {
					t.Errorf("%s links %s", prog, d)
				}
			}
		}
	}
}

func TestDecisionsAreNumbered(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join(root(t), "docs/adr"))
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		if want := fmt.Sprintf("%04d-", i+1); !strings.HasPrefix(e.Name(), want) {
			t.Errorf("docs/adr/%s: want a name that starts with %s", e.Name(), want)
		}
		data, err := os.ReadFile(filepath.Join(root(t), "docs/adr", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"**Status**", "**Context.**", "**Decision.**", "**Consequences.**"} {
			if !strings.Contains(string(data), part) {
				t.Errorf("docs/adr/%s lacks %s", e.Name(), part)
			}
		}
	}
}
