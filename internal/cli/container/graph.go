package container

import "github.com/moby/moby/api/types/container"

// graphWidth is how many samples a little graph shows.
const graphWidth = 20

var bars = []rune("▁▂▃▄▅▆▇█")

// history is the last samples of a container, in percent.
type history struct{ cpu, memory []float64 }

// histories keeps the samples of `stats` by container.
type histories map[string]*history

// add takes in a round of samples; containers without one are forgotten.
func (h histories) add(rows []sample) {
	seen := map[string]bool{}
	for _, r := range rows {
		seen[r.ID] = true
		one := h[r.ID]
		if one == nil {
			one = &history{}
			h[r.ID] = one
		}
		one.cpu = append(one.cpu, cpuPercent(r.StatsResponse))
		one.memory = append(one.memory, memoryPercent(r.StatsResponse))
		if len(one.cpu) > graphWidth {
			one.cpu, one.memory = one.cpu[1:], one.memory[1:]
		}
	}
	for id := range h {
		if !seen[id] {
			delete(h, id)
		}
	}
}

// graph draws values as bars from 0 to the largest of them, at least to full.
func graph(values []float64, full float64) string {
	top := full
	for _, v := range values {
		top = max(top, v)
	}
	out := make([]rune, len(values))
	for i, v := range values {
		out[i] = bars[min(int(v/top*float64(len(bars))), len(bars)-1)]
	}
	return string(out)
}

// memoryPercent is the memory in use of the limit.
func memoryPercent(s container.StatsResponse) float64 {
	if s.MemoryStats.Limit == 0 {
		return 0
	}
	return 100 * float64(memoryInUse(s)) / float64(s.MemoryStats.Limit)
}
