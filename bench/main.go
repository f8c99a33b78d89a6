// Command bench measures Tare beside Debian's docker and podman: every measure
// is taken of one engine after the other, round by round in one run, so that
// the machine's other load hits all alike; what is written to bench/README.md
// are medians and ratios.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	bin := flag.String("bin", "bin", "folder of our programs")
	rounds := flag.Int("rounds", 15, "rounds of the short measures")
	out := flag.String("out", "bench/README.md", "where the table goes; - for stdout only")
	only := flag.String("only", "", "only measures whose name contains this")
	work := flag.String("work", "", "an empty folder, which the caller removes")
	piece := flag.String("task", "", "only do this piece of work and print the ms it took; the bench runs itself so")
	flag.Parse()
	if *piece != "" {
		fmt.Println(must(task(*piece, *work)))
		return
	}
	if os.Getpid() != 1 || *work == "" {
		log.Fatal("bench/run.sh starts this program, in namespaces of its own")
	}
	b := &bench{work: *work, bin: must(filepath.Abs(*bin)), rounds: *rounds, only: *only}
	go func() {
		interrupted := make(chan os.Signal, 1)
		signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
		<-interrupted
		os.Exit(1)
	}()
	err := b.run()
	b.cleanup()
	if err != nil {
		log.Fatal(err)
	}
	report := b.report()
	fmt.Print("\n" + report)
	if *out != "-" && *only == "" {
		if err := os.WriteFile(*out, []byte(report), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

type bench struct {
	work, bin string
	rounds    int
	only      string
	engines   []*engine
	undo      []func()
	rows      []row
	notes     []string
}

// row is one measure of all engines.
type row struct {
	table  int // 0: engines; 1: the runtime and the host
	name   string
	unit   string
	values map[string]float64 // engine → median
	mark   string             // what we want, "≤ 0.10× docker"
}

func (b *bench) cleanup() {
	for _, f := range slices.Backward(b.undo) {
		f()
	}
}

func (b *bench) run() error {
	if err := b.start(); err != nil {
		return err
	}
	for _, m := range []struct {
		name string
		do   func() error
	}{
		{"run", b.runs}, {"exec", b.exec}, {"starts", b.starts}, {"ship", b.ship}, {"build", b.build},
		{"runtime", b.runtimes}, {"inside", b.inside}, {"logs", b.logs}, {"hundred", b.hundred}, {"host", b.host},
	} {
		if b.only != "" && !strings.Contains(m.name, b.only) {
			continue
		}
		log.Printf("--- %s", m.name)
		if err := m.do(); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// pause keeps what an engine does after its answer (podman starts a program to clean up) away from the next one.
const pause = 250 * time.Millisecond

// interleave takes rounds of do for every engine in turn and keeps the medians. The first round warms up and is not counted.
func (b *bench) interleave(name, mark string, rounds int, do func(*engine) error) error {
	times := map[string][]float64{}
	for r := range rounds + 1 {
		for _, e := range b.engines {
			if e.missing[name] {
				continue
			}
			took, err := timed(func() error { return do(e) })
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			if r > 0 {
				times[e.name] = append(times[e.name], took)
			}
			time.Sleep(pause)
		}
	}
	b.record(name, "ms", mark, times)
	return nil
}

func (b *bench) record(name, unit, mark string, times map[string][]float64) {
	b.recordIn(0, name, unit, mark, times)
}

func (b *bench) recordIn(table int, name, unit, mark string, times map[string][]float64) {
	values := map[string]float64{}
	for e, t := range times {
		values[e] = median(t)
	}
	b.rows = append(b.rows, row{table: table, name: name, unit: unit, values: values, mark: mark})
	log.Printf("%-34s %v", name, values)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func (b *bench) report() string {
	var s strings.Builder
	fmt.Fprintf(&s, `# Benches

`+"`make bench`"+` measures Tare beside Debian's docker and podman: every measure is taken of one engine after the other, round by
round in one run; the figures are medians. Read the ratios, not the absolutes: the machine (2 cores, shared) is not yours.

Last run: %s, %s.

`, time.Now().Format("2006-01-02"), b.versions())
	s.WriteString(b.table(0, b.peers()))
	s.WriteString("\nThe runtime as a command beside the others, and work in a container beside the same on the host:\n\n")
	s.WriteString(b.table(1, []string{"crun", "runc", "host"}))
	for _, n := range b.notes {
		fmt.Fprintf(&s, "\n%s\n", n)
	}
	return s.String()
}

func (b *bench) table(number int, peers []string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "| measure | tare | %s | ratios | mark |\n|---|--:|%s---|---|\n", strings.Join(peers, " | "), strings.Repeat("--:|", len(peers)))
	for _, r := range b.rows {
		if r.table != number {
			continue
		}
		ours := r.values["tare"]
		fmt.Fprintf(&s, "| %s | %s |", r.name, figure(ours, r.unit))
		var ratios []string
		for _, p := range peers {
			v, ok := r.values[p]
			if !ok {
				s.WriteString(" - |")
				continue
			}
			fmt.Fprintf(&s, " %s |", figure(v, r.unit))
			ratios = append(ratios, fmt.Sprintf("%.2f× %s", ours/v, p))
		}
		fmt.Fprintf(&s, " %s | %s |\n", strings.Join(ratios, ", "), r.mark)
	}
	return s.String()
}

func figure(v float64, unit string) string {
	switch {
	case unit == "ms" && v >= 2000:
		return fmt.Sprintf("%.2f s", v/1000)
	case v >= 100:
		return fmt.Sprintf("%.0f %s", v, unit)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

func (b *bench) peers() []string {
	var out []string
	for _, e := range b.engines[1:] {
		out = append(out, e.name)
	}
	return out
}

func (b *bench) versions() string {
	var out []string
	for _, e := range b.engines {
		out = append(out, e.name+" "+e.version)
	}
	return strings.Join(out, ", ")
}
