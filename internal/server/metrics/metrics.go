// Package metrics tells Prometheus how the engine and its containers are, at /metrics of --metrics-addr.
//
// The engine's own are named as dockerd's (engine_daemon_…), so that dashboards work unchanged; those of
// running containers are tare_container_…, with the labels id, name and image. They are read when they are asked for.
package metrics

import (
	"context"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tare/internal/base/event"
	enginecontainer "tare/internal/engine/container"
)

// patience is how long the containers may take to be asked; those that don't answer in time are left out.
const patience = 5 * time.Second

// atOnce is how many containers are asked at the same time.
const atOnce = 8

// Containers is what the metrics are about.
type Containers interface {
	List(ctx context.Context, o enginecontainer.ListOptions) ([]container.Summary, error)
	Stats(ctx context.Context, ref string) (container.StatsResponse, error)
}

// Facts describe the engine.
type Facts struct {
	Version, Commit, Kernel, OS, Graph, ID string
	Memory                                 int64 // bytes of the host
}

// New returns the handler of /metrics. Events are counted until ctx ends.
func New(ctx context.Context, f Facts, c Containers, bus *event.Bus) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "engine", Subsystem: "daemon", Name: "engine_info", Help: "The information related to the engine and the OS it is running on",
	}, []string{"version", "commit", "architecture", "graphdriver", "kernel", "os", "os_type", "os_version", "daemon_id"})
	info.WithLabelValues(f.Version, f.Commit, runtime.GOARCH, f.Graph, f.Kernel, f.OS, "linux", "", f.ID).Set(1)
	cpus := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "engine", Subsystem: "daemon", Name: "engine_cpus_cpus", Help: "The number of cpus that the host system of the engine has"})
	cpus.Set(float64(runtime.NumCPU()))
	memory := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "engine", Subsystem: "daemon", Name: "engine_memory_bytes", Help: "The number of bytes of memory that the host system of the engine has"})
	memory.Set(float64(f.Memory))
	reg.MustRegister(info, cpus, memory, collector{c}, newCounters(ctx, bus))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 2 * patience}))
	return mux
}

// counters count what happens.
type counters struct {
	events  prometheus.Counter
	actions *prometheus.CounterVec
	checks  *prometheus.CounterVec
}

// Describe and Collect implement prometheus.Collector.
func (c *counters) Describe(ch chan<- *prometheus.Desc) {
	c.events.Describe(ch)
	c.actions.Describe(ch)
	c.checks.Describe(ch)
}

func (c *counters) Collect(ch chan<- prometheus.Metric) {
	c.events.Collect(ch)
	c.actions.Collect(ch)
	c.checks.Collect(ch)
}

func newCounters(ctx context.Context, bus *event.Bus) *counters {
	c := &counters{
		events: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "engine", Subsystem: "daemon", Name: "events_total", Help: "The number of events logged"}),
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "tare", Subsystem: "engine", Name: "actions_total", Help: "The number of actions by what they were done to",
		}, []string{"type", "action"}),
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "tare", Subsystem: "engine", Name: "health_changes_total", Help: "The number of times that containers became healthy or unhealthy",
		}, []string{"status"}),
	}
	go c.count(ctx, bus)
	return c
}

// count counts events until ctx ends.
func (c *counters) count(ctx context.Context, bus *event.Bus) {
	for sub := bus.Subscribe(); ; {
		select {
		case <-ctx.Done():
			sub.Close()
			return
		case e, ok := <-sub.C:
			if !ok { // fell behind
				sub = bus.Subscribe()
				continue
			}
			c.events.Inc()
			action, detail, _ := strings.Cut(e.Action, ": ") // "exec_create: sh -c …"
			if action == "health_status" {
				c.checks.WithLabelValues(detail).Inc()
			}
			c.actions.WithLabelValues(e.Type, action).Inc()
		}
	}
}

var containerLabels = []string{"id", "name", "image"}

func desc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("tare_container_"+name, help, append(append([]string{}, containerLabels...), more...), nil)
}

var (
	states = prometheus.NewDesc("engine_daemon_container_states_containers", "The count of containers in various states", []string{"state"}, nil)

	cpuSeconds   = desc("cpu_seconds_total", "CPU time used", "mode")
	throttled    = desc("cpu_throttled_seconds_total", "Time throttled by the CPU limit")
	memoryUsed   = desc("memory_usage_bytes", "Memory used, page cache included")
	memoryWork   = desc("memory_working_set_bytes", "Memory used, without page cache that can go")
	memoryLimit  = desc("memory_limit_bytes", "Memory limit; the host's memory where there is none")
	pids         = desc("pids", "Processes and threads")
	netBytes     = desc("network_bytes_total", "Bytes of network interfaces", "interface", "direction")
	netDrops     = desc("network_dropped_packets_total", "Packets dropped", "interface", "direction")
	blockBytes   = desc("block_bytes_total", "Bytes read from and written to block devices", "operation")
	descriptions = []*prometheus.Desc{states, cpuSeconds, throttled, memoryUsed, memoryWork, memoryLimit, pids, netBytes, netDrops, blockBytes}
)

// collector asks the containers when it is asked.
type collector struct{ containers Containers }

// Describe and Collect implement prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := c.containers.List(ctx, enginecontainer.ListOptions{All: true})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(states, err)
		return
	}
	count := map[string]float64{"running": 0, "paused": 0, "stopped": 0}
	slots := make(chan struct{}, atOnce)
	var asked sync.WaitGroup
	for _, s := range all {
		switch s.State {
		case container.StateRunning, container.StatePaused:
			count[string(s.State)]++
		default:
			count["stopped"]++
			continue
		}
		asked.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			if st, err := c.containers.Stats(ctx, s.ID); err == nil && !st.Read.IsZero() {
				sample(ch, s, st)
			}
		})
	}
	asked.Wait()
	for state, n := range count {
		ch <- prometheus.MustNewConstMetric(states, prometheus.GaugeValue, n, state)
	}
}

func sample(ch chan<- prometheus.Metric, s container.Summary, st container.StatsResponse) {
	labels := []string{s.ID, strings.TrimPrefix(st.Name, "/"), s.Image}
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, more ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, append(append([]string{}, labels...), more...)...)
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	put(cpuSeconds, counter, seconds(st.CPUStats.CPUUsage.UsageInUsermode), "user")
	put(cpuSeconds, counter, seconds(st.CPUStats.CPUUsage.UsageInKernelmode), "system")
	put(throttled, counter, seconds(st.CPUStats.ThrottlingData.ThrottledTime))
	put(memoryUsed, gauge, float64(st.MemoryStats.Usage))
	cache := st.MemoryStats.Stats["total_inactive_file"] // v1
	if cache == 0 {
		cache = st.MemoryStats.Stats["inactive_file"]
	}
	put(memoryWork, gauge, float64(st.MemoryStats.Usage-min(cache, st.MemoryStats.Usage)))
	put(memoryLimit, gauge, float64(st.MemoryStats.Limit))
	put(pids, gauge, float64(st.PidsStats.Current))
	for name, n := range st.Networks {
		put(netBytes, counter, float64(n.RxBytes), name, "receive")
		put(netBytes, counter, float64(n.TxBytes), name, "transmit")
		put(netDrops, counter, float64(n.RxDropped), name, "receive")
		put(netDrops, counter, float64(n.TxDropped), name, "transmit")
	}
	block := map[string]float64{}
	for _, e := range st.BlkioStats.IoServiceBytesRecursive {
		block[strings.ToLower(e.Op)] += float64(e.Value)
	}
	for _, op := range []string{"read", "write"} {
		put(blockBytes, counter, block[op], op)
	}
}

func seconds(ns uint64) float64 { return float64(ns) / 1e9 }
