package hub

import (
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/hub/metrics"
)

// recorder notes what an answer was, for the log and the metrics.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	start  time.Time
	kind   string // of address: the route, for metrics
	actor  string
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.begin()
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// begin notes the status of an answer that says none.
func (r *recorder) begin() {
	if r.status == 0 {
		r.status = http.StatusOK
	}
}

// ReadFrom lets the server use sendfile.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	r.begin()
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// code is the status that was sent.
func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

func (r *recorder) log(log *slog.Logger, rq *http.Request) {
	if !log.Enabled(rq.Context(), slog.LevelInfo) {
		return
	}
	log.LogAttrs(rq.Context(), slog.LevelInfo, "request", slog.String("method", rq.Method), slog.String("path", rq.URL.Path),
		slog.Int("status", r.code()), slog.Int64("bytes", r.bytes), slog.Duration("took", time.Since(r.start).Round(time.Microsecond)),
		slog.String("remote", rq.RemoteAddr), slog.String("user", r.actor), slog.String("agent", rq.UserAgent()))
}

// meters are the registry's metrics.
type meters struct {
	set      metrics.Set
	requests *metrics.Counter
	took     *metrics.Histogram
	sent     *metrics.Counter
	received *metrics.Counter
	events   *metrics.Counter
	upstream *metrics.Counter
	garbage  *metrics.Counter
	freed    *metrics.Counter
	busy     atomic.Int64
}

func newMeters(h *Hub) *meters {
	m := &meters{}
	s := &m.set
	m.requests = s.Counter("tare_registry_requests_total", "Requests by kind of address, method and status.", "kind", "method", "code")
	m.took = s.Histogram("tare_registry_request_seconds", "How long requests took.", "kind", "method")
	m.sent = s.Counter("tare_registry_sent_bytes_total", "Bytes of bodies sent.")
	m.received = s.Counter("tare_registry_received_bytes_total", "Bytes of blobs and manifests received.")
	m.events = s.Counter("tare_registry_events_total", "Pushes, pulls, mounts and deletions.", "action", "object")
	m.upstream = s.Counter("tare_registry_upstream_total", "What caches asked of other registries: fetched, fresh (not asked), stale (upstream failed, the cached answer was given), failed.", "prefix", "outcome")
	m.garbage = s.Counter("tare_registry_removed_total", "What garbage collection and retention removed.", "object")
	m.freed = s.Counter("tare_registry_freed_bytes_total", "Bytes of blobs that were removed.")
	s.Gauge("tare_registry_requests_now", "Requests under way.", func() float64 { return float64(m.busy.Load()) })
	s.Gauge("tare_registry_uploads_now", "Bodies that are being received.", func() float64 { return float64(h.gate.Inside()) })
	s.Gauge("tare_registry_repositories", "Repositories.", func() float64 { return float64(h.index.repositories()) })
	s.Gauge("tare_registry_blobs", "Blobs and manifests that repositories have.", func() float64 { return float64(h.index.blobs()) })
	s.Gauge("tare_registry_webhooks_waiting", "Webhook deliveries under way.", func() float64 { return float64(h.hooks.Waiting()) })
	s.Gauge("tare_registry_disk_free_bytes", "Bytes free on the registry's disk.", func() float64 { return float64(h.free()) })
	return m
}

// codes are the strings of statuses, so that counting a request makes none.
var codes = func() (all [600]string) {
	for i := range all {
		all[i] = string([]byte{byte('0' + i/100), byte('0' + i/10%10), byte('0' + i%10)})
	}
	return all
}()

func (m *meters) count(rec *recorder, r *http.Request) {
	method := r.Method
	switch method {
	case "GET", "HEAD", "PUT", "POST", "PATCH", "DELETE":
	default:
		method = "other"
	}
	m.requests.Add(1, rec.kind, method, codes[rec.code()%600])
	m.took.Observe(time.Since(rec.start), rec.kind, method)
	m.sent.Add(rec.bytes)
}

// free is how many bytes the registry's disk has left for it; 0 if that can't be told.
func (l layout) free() int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(l.root, &st); err != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}
