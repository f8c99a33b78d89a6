package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tare/internal/test/images"
)

// ship moves 8 layers, 494 MB, 15,000 files: pull, push, save, load and rmi, each beside the peers, and the pull beside the raw limit, which is
// curl | gunzip | tar of all layers side by side.
func (b *bench) ship() error {
	img, err := images.Generate(images.Options{Layers: 8, FilesPerLayer: 1875, FileSize: 33000})
	if err != nil {
		return err
	}
	if err := img.Push("http://"+registryAddr, "bench/large", "1"); err != nil {
		return err
	}
	ref := registryAddr + "/bench/large:1"
	m := map[string]map[string][]float64{}
	note := func(what, who string, took float64) {
		if m[what] == nil {
			m[what] = map[string][]float64{}
		}
		m[what][who] = append(m[what][who], took)
	}
	pull := func(e *engine) error { return e.do(append(append([]string{"pull", "-q"}, e.pulls...), ref)...) }
	for r := range min(b.rounds, 4) + 1 { // the first warms up
		measure := func(what string, e *engine, do func() error) error {
			t, err := timed(do)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", e.name, what, err)
			}
			if r > 0 {
				note(what, e.name, t)
			}
			return nil
		}
		t, err := timed(func() error { return rawPull(b.work, img) })
		if err != nil {
			return err
		}
		if r > 0 {
			note("pull", "raw", t)
		}
		for _, e := range b.engines {
			to := fmt.Sprintf("%s/bench/%s%d:1", registryAddr, e.name, r)
			archive := filepath.Join(b.work, e.name+".tar")
			push := func() error { return e.do(append(append([]string{"push", "-q"}, e.pulls...), to)...) }
			reset := resetPeak("tared")
			for _, step := range []struct {
				what string
				do   func() error
			}{
				{"pull", func() error { return pull(e) }},
				{"second pull", func() error { return pull(e) }},
				{"", func() error { return e.do("tag", ref, to) }},
				{"push", push},
				{"second push", push},
				{"", func() error { return e.do("rmi", to) }},
				{"save", func() error { return e.do("save", "-o", archive, ref) }},
				{"rmi", func() error { return e.do("rmi", "-f", ref) }},
				{"load", func() error { return e.do("load", "-i", archive) }},
				{"", func() error { return e.do("rmi", "-f", ref) }},
				{"", func() error { return os.Remove(archive) }},
			} {
				if err := measure(step.what, e, step.do); err != nil {
					return err
				}
				if step.what == "pull" && e.name == "tare" && r > 0 {
					note("peak memory of a pull", "tare", float64(reset()))
				}
			}
		}
	}
	for _, row := range []struct{ what, title, unit, mark string }{
		{"pull", "pull, 8 layers, 494 MB, 15,000 files", "ms", "≤ 0.6× the best, ≤ 1.2× raw"},
		{"second pull", "pull of the same again", "ms", "≤ 1.0× the best"},
		{"push", "push into a repository that is not there", "ms", "≤ 0.5× the best"},
		{"second push", "push of the same again", "ms", "≤ 1.0× the best"},
		{"save", "save", "ms", "≤ 0.5× the best"},
		{"load", "load", "ms", "≤ 0.5× the best"},
		{"rmi", "rmi", "ms", "≤ 0.5× the best"},
		{"peak memory of a pull", "peak memory of the engine in a pull", "KiB", "≤ 100 MiB"},
	} {
		b.record(row.title, row.unit, row.mark, m[row.what])
	}
	raw := median(m["pull"]["raw"])
	b.notes = append(b.notes, fmt.Sprintf("The raw limit of that pull, curl | gunzip | tar of all layers side by side: %.0f ms; tare takes %.2f× as long.", raw, median(m["pull"]["tare"])/raw))
	return nil
}

// rawPull is what a pull can't do without.
func rawPull(work string, img *images.Image) error {
	dir, err := os.MkdirTemp(work, "raw")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var script strings.Builder
	for i, l := range img.Layers {
		fmt.Fprintf(&script, "mkdir %s/%d && curl -sf http://%s/v2/bench/large/blobs/%s | gunzip | tar -x --numeric-owner -p -C %s/%d & ", dir, i, registryAddr, l.Digest, dir, i)
	}
	out, err := exec.Command("bash", "-c", script.String()+"wait").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// resetPeak forgets how much memory a program has used at most; the result reads that, in KiB of VmHWM, since then (proc(5), clear_refs).
func resetPeak(program string) (peak func() int64) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found string
	for _, d := range dirs {
		cmdline, _ := os.ReadFile(d + "/cmdline")
		name, _, _ := strings.Cut(string(cmdline), "\x00")
		if filepath.Base(name) == program {
			found = d
			_ = os.WriteFile(d+"/clear_refs", []byte("5"), 0)
		}
	}
	return func() (kib int64) {
		data, _ := os.ReadFile(found + "/status")
		for line := range strings.SplitSeq(string(data), "\n") {
			fmt.Sscanf(line, "VmHWM: %d kB", &kib)
		}
		return kib
	}
}
