package api

import (
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// Prometheus sees the engine under dockerd's names, and every running container.
func TestMetrics(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // a free port
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	e := harness.Start(t, "--metrics-addr", address)
	e.Tools()
	e.Docker("run", "-d", "--name", "web", "tools", "sleep", "1000")
	e.Docker("create", "--name", "idle", "tools", "true")
	read := func() string {
		resp, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status, err, string(text))
		}
		return string(text)
	}
	e.Until("the events are counted", func() bool {
		return strings.Contains(read(), `tare_engine_actions_total{action="start",type="container"} 1`)
	})
	text := read()
	for _, want := range []string{
		`engine_daemon_engine_info\{.*version="`, `engine_daemon_engine_cpus_cpus \d`, `engine_daemon_engine_memory_bytes [\d.e+]{4}`, `engine_daemon_events_total [1-9]`,
		`engine_daemon_container_states_containers\{state="running"\} 1`, `engine_daemon_container_states_containers\{state="stopped"\} 1`, `engine_daemon_container_states_containers\{state="paused"\} 0`,
		`tare_container_memory_usage_bytes\{id="[0-9a-f]{64}",image="tools",name="web"\} [1-9]`, `tare_container_cpu_seconds_total\{id="[0-9a-f]{64}",image="tools",mode="user",name="web"\}`,
		`tare_container_pids\{.*name="web"\} [1-9]`, `tare_container_network_bytes_total\{direction="receive",id="[0-9a-f]{64}",image="tools",interface="eth0",name="web"\}`,
	} {
		if !regexp.MustCompile(`(?m)^` + want).MatchString(text) {
			t.Errorf("no line like %s", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
