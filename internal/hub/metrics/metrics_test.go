package metrics

import (
	"strings"
	"testing"
	"time"
)

func TestWrite(t *testing.T) {
	var s Set
	c := s.Counter("a_total", "As.", "method", "code")
	plain := s.Counter("b_total", "Bs.")
	s.Gauge("c", "C.", func() float64 { return 2.5 })
	h := s.Histogram("d_seconds", "D.", "m")
	c.Add(2, "GET", "200")
	c.Add(1, `P"T`, "500")
	h.Observe(3*time.Millisecond, "x")
	h.Observe(2*time.Minute, "x")
	var b strings.Builder
	s.Write(&b)
	for _, want := range []string{
		"# TYPE a_total counter\n", `a_total{method="GET",code="200"} 2` + "\n", `a_total{method="P\"T",code="500"} 1` + "\n", "b_total 0\n", "c 2.5\n",
		`d_seconds_bucket{m="x",le="0.0025"} 0`, `d_seconds_bucket{m="x",le="0.005"} 1`, `d_seconds_bucket{m="x",le="60"} 1`, `d_seconds_bucket{m="x",le="+Inf"} 2`,
		`d_seconds_sum{m="x"} 120.003`, `d_seconds_count{m="x"} 2`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if plain.Value() != 0 || c.Value("GET", "200") != 2 {
		t.Error("values")
	}
}
