package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
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

// starts runs containers detached, one after the other, removes them, and looks at what they cost while idle.
func (b *bench) starts() error {
	names := make([]string, started)
	for i := range names {
		names[i] = fmt.Sprintf("idle%d", i)
	}
	runAll := func(e *engine) error {
		for _, name := range names {
			if err := e.do("run", "-d", "--name", name, "small", "sleep", "100000"); err != nil {
				return err
			}
		}
		return nil
	}
	removeAll := func(e *engine) error { return e.do(slices.Concat([]string{"rm", "-f"}, e.kills, names)...) }
	starting, removing, idle := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	for range 3 {
		for _, e := range b.engines {
			before := memory(supervisors[e.name])
			t, err := timed(func() error { return runAll(e) })
			if err != nil {
				return err
			}
			starting[e.name] = append(starting[e.name], t)
			time.Sleep(rest)
			idle[e.name] = append(idle[e.name], float64(memory(supervisors[e.name])-before)/started)
			if t, err = timed(func() error { return removeAll(e) }); err != nil {
				return err
			}
			removing[e.name] = append(removing[e.name], t)
		}
	}
	b.record(fmt.Sprintf("%d × `run -d`", started), "ms", "", starting)
	b.record(fmt.Sprintf("`rm -f` of %d running", started), "ms", "", removing)
	b.record("supervision of an idle container (PSS)", "KiB", "≤ 60 KiB", idle)
	time.Sleep(rest)
	b.record("engine with nothing to do (PSS)", "KiB", "", map[string][]float64{
		"tare":   {float64(memory("tared") + memory("tare-run"))},
		"docker": {float64(memory("dockerd") + memory("containerd"))},
	})
	b.notes = append(b.notes, "Supervision is what has to stay in memory for a container besides itself: the growth of our supervisor; docker's containerd-shim and podman's conmon processes.")
	return nil
}

// rest is how long engines get to give memory back before they are looked at.
const rest = 2 * time.Second

// supervisors are the programs that stand between an engine and its containers.
var supervisors = map[string]string{"tare": "tare-run", "docker": "containerd-shim", "podman": "conmon"}

// memory adds up, in KiB of PSS, the processes of one program: the one that its argument 0 names, which the
// kernel's 15 characters of a command's name cut short. There are none but the bench's own in its pid namespace.
func memory(program string) (kib int64) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		cmdline, _ := os.ReadFile(d + "/cmdline")
		name, _, _ := strings.Cut(string(cmdline), "\x00")
		name, _, _ = strings.Cut(name, " ")
		if name = filepath.Base(name); name != program && !(program == "containerd-shim" && strings.HasPrefix(name, program)) {
			continue
		}
		data, _ := os.ReadFile(d + "/smaps_rollup")
		for line := range strings.SplitSeq(string(data), "\n") {
			var n int64
			if _, err := fmt.Sscanf(line, "Pss: %d kB", &n); err == nil {
				kib += n
			}
		}
	}
	return kib
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
