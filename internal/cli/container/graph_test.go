package container

import (
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestGraph(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   string
	}{{nil, ""}, {[]float64{0, 50, 100}, "▁▅█"}, {[]float64{100, 200}, "▅█"}, {[]float64{12.4, 12.6}, "▁▂"}} {
		if got := graph(c.values, 100); got != c.want {
			t.Errorf("%v: %s, want %s", c.values, got, c.want)
		}
	}
}

func TestHistoriesForget(t *testing.T) {
	h := histories{}
	for range 2 * graphWidth {
		h.add([]sample{{StatsResponse: container.StatsResponse{ID: "a"}}, {StatsResponse: container.StatsResponse{ID: "b"}}})
	}
	if len(h["a"].cpu) != graphWidth {
		t.Errorf("%d samples are kept", len(h["a"].cpu))
	}
	h.add([]sample{{StatsResponse: container.StatsResponse{ID: "b"}}})
	if h["a"] != nil || h["b"] == nil {
		t.Errorf("%v", h)
	}
}
