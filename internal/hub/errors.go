package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// refusal is an answer in the form of distribution-spec's "Error Codes".
type refusal struct {
	status  int
	code    string
	message string
	detail  any
}

func (r *refusal) Error() string { return r.code + ": " + r.message }

func refuse(status int, code, format string, args ...any) *refusal {
	return &refusal{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func (c *call) unsupported() *refusal {
	return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "%s is not possible for %s", c.r.Method, c.r.URL.Path)
}

// tooMany asks to come again after wait.
func (c *call) tooMany(wait time.Duration, format string, args ...any) *refusal {
	c.w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	return refuse(http.StatusTooManyRequests, "TOOMANYREQUESTS", format, args...)
}

var errNoSpace = refuse(http.StatusInsufficientStorage, "UNKNOWN", "no space left on the registry's disk")

// fail answers with err; what is not a refusal is this server's own trouble, logged in full.
func (c *call) fail(err error) {
	var f *refusal
	switch {
	case errors.As(err, &f):
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		f = errNoSpace
		c.log.Error("no space left", "method", c.r.Method, "path", c.r.URL.Path, "error", err)
	case c.r.Context().Err() != nil:
		f = refuse(499, "UNKNOWN", "the client went away")
	case errdefs.IsUnavailable(err):
		f = refuse(http.StatusBadGateway, "UNKNOWN", "%v", err)
		c.log.Warn("upstream failed", "path", c.r.URL.Path, "error", err)
	default:
		c.log.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "error", err)
		f = refuse(http.StatusInternalServerError, "UNKNOWN", "the registry failed: see its log")
	}
	if c.w.status != 0 { // too late: the client has to see that it is not whole
		panic(http.ErrAbortHandler)
	}
	if f.status == http.StatusUnauthorized || f.status == http.StatusForbidden || f.status == http.StatusTooManyRequests || f.status == http.StatusConflict {
		c.recordRefusal(f)
	}
	h := c.w.Header()
	for _, name := range []string{"Content-Type", "Content-Length", "Docker-Content-Digest", "Etag", "Cache-Control"} {
		h.Del(name)
	}
	writeJSON(c.w, f.status, map[string]any{"errors": []any{
		map[string]any{"code": f.code, "message": f.message, "detail": f.detail},
	}})
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	w.Write(data)
	return nil
}
