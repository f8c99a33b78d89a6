// Package metrics counts and writes Prometheus' text format (version 0.0.4).
package metrics

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Set is the metrics of one registry.
type Set struct {
	mu       sync.Mutex // guards families
	families []family
}

type family interface {
	write(w io.Writer)
}

func (s *Set) add(f family) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.families = append(s.families, f)
}

// Write writes all metrics.
func (s *Set) Write(w io.Writer) {
	s.mu.Lock()
	all := slices.Clone(s.families)
	s.mu.Unlock()
	for _, f := range all {
		f.write(w)
	}
}

// Counter counts up, by labels.
type Counter struct {
	name, help string
	labels     []string
	values     sync.Map // label values joined by "\xff" → *atomic.Int64
}

// Counter makes and adds a counter. The values given to Add stand for labels, in order.
func (s *Set) Counter(name, help string, labels ...string) *Counter {
	c := &Counter{name: name, help: help, labels: labels}
	s.add(c)
	return c
}

// Add adds n.
func (c *Counter) Add(n int64, values ...string) {
	key := strings.Join(values, "\xff")
	v, ok := c.values.Load(key)
	if !ok {
		v, _ = c.values.LoadOrStore(key, &atomic.Int64{})
	}
	v.(*atomic.Int64).Add(n)
}

// Value is what was counted.
func (c *Counter) Value(values ...string) int64 {
	if v, ok := c.values.Load(strings.Join(values, "\xff")); ok {
		return v.(*atomic.Int64).Load()
	}
	return 0
}

func (c *Counter) write(w io.Writer) {
	head(w, c.name, c.help, "counter")
	var lines []string
	c.values.Range(func(k, v any) bool {
		lines = append(lines, fmt.Sprintf("%s%s %d\n", c.name, pairs(c.labels, strings.Split(k.(string), "\xff"), ""), v.(*atomic.Int64).Load()))
		return true
	})
	if len(lines) == 0 && len(c.labels) == 0 {
		lines = []string{c.name + " 0\n"}
	}
	slices.Sort(lines)
	io.WriteString(w, strings.Join(lines, ""))
}

// gauge is read when it is asked for.
type gauge struct {
	name, help string
	read       func() float64
}

// Gauge adds a value that read returns.
func (s *Set) Gauge(name, help string, read func() float64) { s.add(&gauge{name, help, read}) }

func (g *gauge) write(w io.Writer) {
	head(w, g.name, g.help, "gauge")
	fmt.Fprintf(w, "%s %v\n", g.name, g.read())
}

// bounds of histograms, in seconds.
var bounds = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// Histogram counts durations, by labels.
type Histogram struct {
	name, help string
	labels     []string
	values     sync.Map // as Counter's → *buckets
}

type buckets struct {
	count [len(bounds) + 1]atomic.Int64
	nanos atomic.Int64
}

// Histogram makes and adds one.
func (s *Set) Histogram(name, help string, labels ...string) *Histogram {
	h := &Histogram{name: name, help: help, labels: labels}
	s.add(h)
	return h
}

// Observe counts d.
func (h *Histogram) Observe(d time.Duration, values ...string) {
	key := strings.Join(values, "\xff")
	v, ok := h.values.Load(key)
	if !ok {
		v, _ = h.values.LoadOrStore(key, &buckets{})
	}
	b := v.(*buckets)
	i, _ := slices.BinarySearch(bounds[:], d.Seconds())
	b.count[i].Add(1)
	b.nanos.Add(int64(d))
}

func (h *Histogram) write(w io.Writer) {
	head(w, h.name, h.help, "histogram")
	var keys []string
	h.values.Range(func(k, _ any) bool { keys = append(keys, k.(string)); return true })
	slices.Sort(keys)
	for _, k := range keys {
		v, _ := h.values.Load(k)
		b, values := v.(*buckets), strings.Split(k, "\xff")
		var sum int64
		for i := range b.count {
			sum += b.count[i].Load()
			bound := math.Inf(1)
			if i < len(bounds) {
				bound = bounds[i]
			}
			fmt.Fprintf(w, "%s_bucket%s %d\n", h.name, pairs(h.labels, values, fmt.Sprintf(`le="%v"`, bound)), sum)
		}
		fmt.Fprintf(w, "%s_sum%s %v\n", h.name, pairs(h.labels, values, ""), float64(b.nanos.Load())/1e9)
		fmt.Fprintf(w, "%s_count%s %d\n", h.name, pairs(h.labels, values, ""), sum)
	}
}

func head(w io.Writer, name, help, kind string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func pairs(labels, values []string, more string) string {
	var all []string
	for i, l := range labels {
		if i < len(values) {
			all = append(all, l+`="`+escape.Replace(values[i])+`"`)
		}
	}
	if more != "" {
		all = append(all, more)
	}
	if len(all) == 0 {
		return ""
	}
	return "{" + strings.Join(all, ",") + "}"
}
