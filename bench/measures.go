package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tare/internal/test/images"
)

func (b *bench) runs() error {
	for _, n := range []struct{ network, mark string }{{"bridge", "≤ 0.10× docker"}, {"none", ""}, {"host", ""}} {
		err := b.interleave("run --rm, "+n.network, n.mark, b.rounds, func(e *engine) error {
			return e.do("run", "--rm", "--network", n.network, "small", "true")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) exec() error {
	for _, e := range b.engines {
		if err := e.do("run", "-d", "--name", "target", "small", "sleep", "100000"); err != nil {
			return err
		}
	}
	err := b.interleave("exec", "≤ 0.15× docker", b.rounds, func(e *engine) error { return e.do("exec", "target", "true") })
	for _, e := range b.engines {
		_ = e.do("rm", "-f", "target")
	}
	return err
}

const started = 50

// starts runs containers detached, one after the other, and then looks at what each costs while idle.
func (b *bench) starts() error {
	idle := map[string][]float64{}
	err := b.interleave(fmt.Sprintf("%d detached starts", started), "", 2, func(e *engine) error {
		before := b.supervision(e)
		for i := range started {
			if err := e.do("run", "-d", "--name", fmt.Sprintf("idle%d", i), "small", "sleep", "100000"); err != nil {
				return err
			}
		}
		idle[e.name] = append(idle[e.name], float64(b.supervision(e)-before)/started)
		var names []string
		for i := range started {
			names = append(names, fmt.Sprintf("idle%d", i))
		}
		return e.do(append([]string{"rm", "-f"}, names...)...)
	})
	if err != nil {
		return err
	}
	b.rows[len(b.rows)-1].name += ", and their removal"
	b.record("supervision of an idle container (PSS)", "KiB", "≤ 60 KiB", idle)
	b.notes = append(b.notes, "Supervision is what has to stay in memory for a container besides itself: our supervisor's growth; docker's containerd-shim and podman's conmon processes.")
	return nil
}

// supervision adds up, in KiB of PSS, the processes that stand between an engine and its containers.
func (b *bench) supervision(e *engine) (kib int64) {
	belongs := map[string]func(cmdline string) bool{
		"tare":   func(c string) bool { return strings.Contains(c, "tare-run") && strings.Contains(c, "supervise") },
		"docker": func(c string) bool { return strings.Contains(c, "containerd-shim") },
		"podman": func(c string) bool { return strings.Contains(c, "conmon") },
	}[e.name]
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		cmdline, err := os.ReadFile(d + "/cmdline")
		if err != nil || !belongs(string(cmdline)) || !strings.Contains(string(cmdline)+environ(d), b.work) && e.name == "tare" {
			continue
		}
		data, err := os.ReadFile(d + "/smaps_rollup")
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			var n int64
			if _, err := fmt.Sscanf(line, "Pss: %d kB", &n); err == nil {
				kib += n
			}
		}
	}
	return kib
}

func environ(dir string) string {
	cwd, _ := os.Readlink(dir + "/cwd")
	return cwd
}

// pull fetches 8 layers, 494 MB, 15,000 files from a registry on loopback into an engine that has none of them.
func (b *bench) pull() error {
	img, err := images.Generate(images.Options{Layers: 8, FilesPerLayer: 1875, FileSize: 33000})
	if err != nil {
		return err
	}
	if err := img.Push("http://"+registryAddr, "bench/large", "1"); err != nil {
		return err
	}
	ref := registryAddr + "/bench/large:1"
	pull := func(e *engine) error {
		return e.do(append(append([]string{"pull", "-q"}, e.pulls...), ref)...)
	}
	times := map[string][]float64{}
	for r := range 6 {
		for _, e := range b.engines {
			t, err := timed(func() error { return pull(e) })
			if err != nil {
				return err
			}
			if r > 0 {
				times[e.name] = append(times[e.name], t)
			}
			if err := e.do("rmi", "-f", ref); err != nil {
				return err
			}
		}
	}
	b.record("pull, 8 layers, 494 MB, 15,000 files", "ms", "≤ 0.8× docker", times)
	return nil
}

// build repeats a fully cached build: 5,000 files of context, 5 RUNs, two stages.
func (b *bench) build() error {
	ctx := filepath.Join(b.work, "context")
	for i := range 50 {
		d := filepath.Join(ctx, "src", fmt.Sprintf("d%02d", i))
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		for j := range 100 {
			if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("f%02d.txt", j)), []byte(strings.Repeat(fmt.Sprintf("%d %d\n", i, j), 200)), 0o644); err != nil {
				return err
			}
		}
	}
	dockerfile := `FROM small AS build
RUN mkdir -p /out
COPY src /src
RUN cat /src/d00/f00.txt > /out/a
RUN cp -r /src/d01 /out/b
RUN ls -R /src > /out/c
FROM small
COPY --from=build /out /out
RUN ls -l /out
CMD ["cat", "/out/a"]
`
	if err := os.WriteFile(filepath.Join(ctx, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		return err
	}
	return b.interleave("cached build, 5,000 files, 5 RUNs", "≤ 0.5× BuildKit", 7, func(e *engine) error {
		return e.do("build", "-q", "-t", "cached", ctx)
	})
}
