package build

import (
	"strings"
	"testing"
)

// Each build differs from the one before in one thing; explain names it.
func TestExplain(t *testing.T) {
	w := newWorld(t)
	f := &folder{files: map[string]string{"a": "text of a", "b": "text of b", "other": "x"}}
	df := "FROM base\nARG V=1\nRUN write one $V\nCOPY . /src\nRUN write two 2\n"
	args := map[string]*string{}
	value := func(s string) *string { return &s }
	steps := []struct {
		what string
		do   func()
		want []string // of the three steps
	}{
		{"the first build", func() {}, []string{"no earlier build", "no earlier build", "no earlier build"}},
		{"nothing", func() {}, []string{"unchanged since", "unchanged since", "unchanged since"}},
		{"a file", func() { f.files["b"] = "changed" }, []string{"unchanged since", "ran because the file b differs: sha256:d67e2e944994 mode 644, before: sha256:bd5020b214d3 mode 644", `ran because the step before differs: "COPY . /src sha256:`}},
		{"a new file", func() { f.files["c"] = "c" }, []string{"unchanged since", "ran because the file c is new", "ran because the step before differs"}},
		{"a file less", func() { delete(f.files, "other") }, []string{"unchanged since", "ran because the file other is gone", "ran because the step before differs"}},
		{"an argument", func() { args["V"] = value("2") }, []string{`ran because the variable V differs: "2", before: "1"`, "unchanged since", `ran because the variable V differs: "2", before: "1"`}},
		{"a command", func() { df = strings.Replace(df, "write two 2", "write two 22", 1) }, []string{"unchanged since", "unchanged since", `ran because the command differs: "/bin/sh -c write two 22", before: "/bin/sh -c write two 2"`}},
		{"a destination", func() { df = strings.Replace(df, "COPY . /src", "COPY . /dst", 1) }, []string{"unchanged since", `ran because the destination differs: "/dst", before: "/src"`, "ran because the step before differs"}},
		{"no cache", func() {}, []string{"asked to use no cache", "asked to use no cache", "asked to use no cache"}},
		{"a cache that was emptied of the last step", func() {
			for _, r := range w.s.cache.List() {
				if strings.Contains(r.About, "write two 22") {
					w.s.cache.Remove(r.Key)
				}
			}
		}, []string{"unchanged since", "unchanged since", "ran because its result was no longer in the cache"}},
	}
	for _, s := range steps {
		s.do()
		req := f.request(df)
		req.Explain, req.Origin, req.BuildArgs, req.NoCache = true, "/some/folder", args, s.what == "no cache"
		out := &printed{}
		if _, err := w.s.Build(t.Context(), req, out); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.SplitSeq(out.text.String(), "\n") {
			if strings.HasPrefix(line, " ---> ran") || strings.HasPrefix(line, " ---> unchanged") {
				got = append(got, line)
			}
		}
		for i, want := range s.want {
			if i >= len(got) || !strings.Contains(got[i], want) {
				t.Errorf("%s: step %d: want %q in\n%s", s.what, i, want, strings.Join(got, "\n"))
			}
		}
	}
}
