package build

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tare/internal/base/files"
	"tare/internal/build/copier"
	"tare/internal/build/graph"
	"tare/internal/build/solve"
	"tare/internal/build/source"
)

// story is what is remembered of the last build of one Dockerfile: what its steps were made of. It decides nothing, it only
// tells why a step ran again.
type story struct {
	Steps []told `json:"steps"`
}

// told is one step.
type told struct {
	Key    string  `json:"key"`
	Stage  string  `json:"stage"`
	About  string  `json:"about"`
	Inputs []input `json:"inputs"`
	Files  string  `json:"files,omitempty"` // names a file in build/explain with the digests of what it copied
}

// input is one thing that decides a step's result, in the order in which they are compared.
type input struct{ Name, Value string }

// Bounds of what is remembered.
const (
	maxStories   = 1000
	maxToldFiles = 200_000
)

// stories keeps the story of each Dockerfile.
type stories struct {
	dir string // DATA_ROOT/build/explain
}

// explainer compares a build with the last one of the same Dockerfile.
type explainer struct {
	kept stories
	w    *worker
	g    *graph.Graph
	run  *solve.Run
	path string
	last story
	now  story
	at   map[int]int // steps → index in now
}

// compare begins; origin names the Dockerfile whose builds are compared.
func (s stories) compare(w *worker, g *graph.Graph, run *solve.Run, origin string) *explainer {
	sum := sha256.Sum256([]byte(origin))
	e := &explainer{kept: s, w: w, g: g, run: run, path: filepath.Join(s.dir, hex.EncodeToString(sum[:16])+".json"), at: map[int]int{}}
	_ = files.ReadJSON(e.path, &e.last) // none: nothing to compare with
	return e
}

// tell notes a step that is done and says in one line why it ran, or when it had run.
func (e *explainer) tell(ctx context.Context, stage graph.Stage, step int) string {
	t := e.run.Tasks[step]
	r, err := t.Result()
	if e.g.Steps[step].Op == nil || r.Key == "" {
		return ""
	}
	n := told{Key: r.Key, Stage: cmp.Or(stage.Name, fmt.Sprint(stage.Index)), About: e.g.Steps[step].About, Inputs: e.inputs(t.Work)}
	n.Files, _ = e.files(ctx, t)
	ordinal := 0
	for _, o := range e.now.Steps {
		if o.Stage == n.Stage {
			ordinal++
		}
	}
	e.now.Steps = append(e.now.Steps, n)
	switch {
	case err != nil:
		return ""
	case r.Cached:
		return fmt.Sprintf("unchanged since %s, when it took %s", r.Created.Local().Format(time.DateTime), took(r.Took))
	case e.w.req.NoCache:
		return "ran because the build was asked to use no cache"
	}
	old, ok := e.before(n, ordinal)
	if !ok {
		return "ran because no earlier build of this Dockerfile had this step"
	}
	return "ran because " + e.difference(old, n)
}

func took(d time.Duration) string {
	if d >= time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// before finds the same step in the last build: of the same words in the stage, else at the same place in it.
func (e *explainer) before(n told, ordinal int) (told, bool) {
	var inStage []told
	for _, o := range e.last.Steps {
		if o.Stage != n.Stage {
			continue
		}
		if o.About == n.About {
			return o, true
		}
		inStage = append(inStage, o)
	}
	if ordinal < len(inStage) {
		return inStage[ordinal], true
	}
	return told{}, false
}

// difference names the first input that differs and what it was before.
func (e *explainer) difference(old, now told) string {
	was := map[string]string{}
	for _, i := range old.Inputs {
		was[i.Name] = i.Value
	}
	for _, i := range now.Inputs {
		before, ok := was[i.Name]
		delete(was, i.Name)
		switch {
		case i.Name == "files": // told by name below
		case !ok:
			return fmt.Sprintf("%s is new: %s", i.Name, clip(i.Value))
		case before != i.Value:
			return fmt.Sprintf("%s differs: %s, before: %s", i.Name, clip(i.Value), clip(before))
		}
	}
	for _, i := range old.Inputs {
		if _, gone := was[i.Name]; gone && i.Name != "files" {
			return fmt.Sprintf("%s is gone, before: %s", i.Name, clip(i.Value))
		}
	}
	if old.Files != now.Files {
		if d := e.changedFile(old.Files, now.Files); d != "" {
			return d
		}
		return "a file it copies differs"
	}
	return "its result was no longer in the cache"
}

func clip(s string) string {
	if s = strings.ReplaceAll(s, "\n", " "); len(s) > 200 {
		return s[:200] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// inputs lists what decides the step, besides files.
func (e *explainer) inputs(w solve.Work) (out []input) {
	add := func(name, value string) { out = append(out, input{name, value}) }
	layers := func(name string, step int, ids []string) {
		about := "an empty root"
		if step != graph.None {
			about = e.g.Steps[step].About
		}
		add(name, about+" "+strings.Join(ids, " "))
	}
	short := func(w []string) []string {
		if len(w) > 0 { // the uppermost: a lower one that differs was told of another step
			return w[len(w)-1:]
		}
		return w
	}
	var parent []string
	for _, d := range w.Parent {
		parent = append(parent, d.String())
	}
	switch op := w.Step.Op.(type) {
	case graph.Run:
		add("the command", strings.Join(op.Args, " "))
		for _, kv := range op.Env {
			k, v, _ := strings.Cut(kv, "=")
			add("the variable "+k, v)
		}
		add("the folder", op.Dir)
		add("the user", op.User)
		add("the network", op.Network)
		for _, m := range op.Mounts {
			add("the mount "+cmp.Or(m.Target, m.Env), fmt.Sprintf("%+v", m))
		}
		for _, f := range op.Files {
			add("the inline file "+f.Name, f.Data)
		}
		add("the options of /etc/hosts", strings.Join(op.Hosts, " "))
		add("the limits", fmt.Sprint(op.ShmSize, op.Ulimits))
	case graph.Copy:
		add("the sources", strings.Join(slices.Concat(op.Paths, op.URLs), " "))
		add("the destination", op.Dest)
		add("the owner", op.Owner)
		add("the mode", op.Mode)
		add("the options", fmt.Sprint(op.Exclude, op.Parents, op.Link, op.Extract, op.Unpack, op.Sum, op.Commit, op.KeepGit))
		for _, f := range op.Inline {
			add("the inline file "+f.Name, f.Data)
		}
	case graph.MakeDir:
		add("the folder", op.Path)
		add("the owner", op.Owner)
	}
	layers("the step before", w.Step.Parent, short(parent))
	for i, in := range w.Inputs {
		var ids []string
		for _, d := range in {
			ids = append(ids, d.String())
		}
		layers(fmt.Sprintf("source %d", i+1), w.Step.Inputs[i], short(ids))
	}
	add("the image's time", time.Unix(w.Step.Epoch, 0).UTC().Format(time.DateTime))
	return out
}

// files writes down the digests of what a step reads of contexts, and names the list. Equal lists are one.
func (e *explainer) files(ctx context.Context, t *solve.Task) (string, error) {
	if t.Reads == "" {
		return "", nil
	}
	sum := sha256.Sum256([]byte(t.Reads))
	name := hex.EncodeToString(sum[:16]) + ".files"
	file := filepath.Join(e.kept.dir, name)
	if _, err := os.Lstat(file); err == nil {
		return name, nil
	}
	var b strings.Builder
	lines := 0
	list := func(from string, paths, exclude []string, parents bool) error {
		a, err := e.w.context(ctx, from)
		if err != nil {
			return err
		}
		sel, err := copier.Select(a, "", paths, exclude, parents)
		if err != nil {
			return err
		}
		return sel.All(func(f *source.Entry) {
			if lines++; lines <= maxToldFiles {
				fmt.Fprintf(&b, "%o %s %q\n", uint32(f.Mode), cmp.Or(hex.EncodeToString(f.Sum), f.Link, "-"), f.Path)
			}
		})
	}
	var err error
	switch op := t.Work.Step.Op.(type) {
	case graph.Copy:
		if op.From.Context && len(op.Paths) > 0 {
			err = list(op.From.Name, op.Paths, op.Exclude, op.Parents)
		}
	case graph.Run:
		for _, m := range op.Mounts {
			if m.Type == "bind" && m.From.Context && err == nil {
				err = list(m.From.Name, []string{m.Path}, nil, false)
			}
		}
	}
	if err == nil {
		err = files.Write(file, []byte(b.String()), 0o600, files.Fast)
	}
	return name, err
}

// changedFile compares two lists of files.
func (e *explainer) changedFile(old, now string) string {
	was, is := e.read(old), e.read(now)
	if was == nil || is == nil {
		return ""
	}
	for _, n := range sorted(is) {
		switch before, ok := was[n]; {
		case !ok:
			return fmt.Sprintf("the file %s is new", n)
		case before != is[n]:
			return fmt.Sprintf("the file %s differs: %s, before: %s", n, is[n], before)
		}
	}
	for _, n := range sorted(was) {
		if _, ok := is[n]; !ok {
			return fmt.Sprintf("the file %s is gone", n)
		}
	}
	return ""
}

func sorted(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (e *explainer) read(name string) map[string]string {
	f, err := os.Open(filepath.Join(e.kept.dir, path.Base(name)))
	if err != nil {
		return nil
	}
	defer f.Close()
	out := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var mode, sum, file string
		if n, _ := fmt.Sscanf(lines.Text(), "%s %s %q", &mode, &sum, &file); n == 3 {
			if len(sum) == 64 {
				sum = "sha256:" + sum[:12]
			}
			out[strings.TrimPrefix(file, "/")] = sum + " mode " + mode
		}
	}
	return out
}

// save remembers this build, unless nothing differs from the last one.
func (e *explainer) save() {
	if len(e.now.Steps) == 0 || slices.EqualFunc(e.now.Steps, e.last.Steps, func(a, b told) bool { return a.Key == b.Key && a.Stage == b.Stage }) {
		return
	}
	if files.WriteJSON(e.path, e.now, files.Fast) == nil {
		e.kept.forget()
	}
}

// forget removes the oldest stories when there are very many.
func (s stories) forget() {
	entries, err := os.ReadDir(s.dir)
	if err != nil || len(entries) <= maxStories {
		return
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return modified(a).Compare(modified(b)) })
	for _, e := range entries[:len(entries)-maxStories/2] {
		os.Remove(filepath.Join(s.dir, e.Name()))
	}
}

func modified(e os.DirEntry) time.Time {
	if info, err := e.Info(); err == nil {
		return info.ModTime()
	}
	return time.Time{}
}

func (s stories) forgetAll() error {
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	return os.MkdirAll(s.dir, 0o700)
}
