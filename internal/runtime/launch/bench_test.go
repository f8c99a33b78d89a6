package launch

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/cgroup"
	"tare/internal/runtime/plan"
)

// BenchmarkStart is one container after another, each from clone to the end of `true`.
func BenchmarkStart(b *testing.B) {
	for _, e := range []plan.Executor{plan.Interpreter, plan.Stage} {
		b.Run(string(e), func(b *testing.B) {
			Force(e)
			defer Force("")
			benchmarkStart(b)
		})
	}
}

// BenchmarkExec is `true` in a running container, from the compiled spec to its exec.
func BenchmarkExec(b *testing.B) {
	r := running(b)
	for _, e := range []plan.Executor{plan.Interpreter, plan.Stage} {
		b.Run(string(e), func(b *testing.B) {
			Force(e)
			defer Force("")
			proc, host := *r.spec.Process, r.host()
			proc.Args = []string{"true"}
			for b.Loop() {
				p, err := plan.CompileExec(r.spec, &proc, host)
				must(b, err)
				c, err := New(p, r.init.Pid, Stdio{})
				must(b, err)
				must(b, c.Go())
				for m := (Message{}); !m.Started; {
					m, err = c.Next()
					must(b, err)
					must(b, m.Err)
				}
				unix.Wait4(c.Pid, nil, 0, nil)
				c.Close()
			}
		})
	}
}

func benchmarkStart(b *testing.B) {
	r := newRig(b, "true")
	host, err := Host()
	if err != nil {
		b.Fatal(err)
	}
	phases := map[string][]time.Duration{}
	i := 0
	for b.Loop() {
		i++
		dir := b.TempDir() + strconv.Itoa(i)
		r.root.Upper, r.root.Work = dir+"/u", dir+"/w"
		os.MkdirAll(r.root.Upper, 0o755)
		os.MkdirAll(r.root.Work, 0o755)
		last := time.Now()
		mark := func(name string) {
			now := time.Now()
			phases[name] = append(phases[name], now.Sub(last))
			last = now
		}
		p, err := plan.Compile(r.spec, r.root, host)
		if err != nil {
			b.Fatal(err)
		}
		mark("0 compile")
		g, _ := cgroup.Open(r.spec.Linux.CgroupsPath)
		if err := g.Create(r.spec.Linux.Resources); err != nil {
			b.Fatal(err)
		}
		mark("1 cgroup")
		c, err := New(p, 0, Stdio{})
		if err != nil {
			b.Fatal(err)
		}
		mark("2 new")
		if m, err := c.Next(); err != nil || m.Err != nil {
			b.Fatal(m.Err, err)
		}
		mark("3 created")
		c.Go()
		if m, err := c.Next(); err != nil || m.Err != nil {
			b.Fatal(m.Err, err)
		}
		mark("4 started")
		unix.Wait4(c.Pid, nil, 0, nil)
		mark("5 exit")
		c.Close()
		if err := g.Remove(); err != nil {
			b.Fatal(err)
		}
		mark("6 remove")
	}
	parent, _ := cgroup.Open(filepath.Dir(r.spec.Linux.CgroupsPath))
	_ = parent.Remove()
	var names []string
	for n := range phases {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		slices.Sort(phases[n])
		b.ReportMetric(float64(phases[n][len(phases[n])/4].Microseconds()), n[2:]+"-p25-µs")
	}
}
