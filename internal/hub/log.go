package hub

import (
	"io"
	"log/slog"
	"net/http"
	"time"
)

// recorder notes what an answer was, for the access log.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	start  time.Time
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// ReadFrom lets the server use sendfile.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) log(log *slog.Logger, rq *http.Request) {
	status := r.status
	if status == 0 {
		status = http.StatusOK
	}
	log.Info("request", "method", rq.Method, "path", rq.URL.Path, "status", status, "bytes", r.bytes,
		"took", time.Since(r.start).Round(time.Microsecond), "remote", rq.RemoteAddr, "agent", rq.UserAgent())
}
