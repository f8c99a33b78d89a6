package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

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

func unsupported(r *http.Request) *refusal {
	return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "%s is not possible for %s", r.Method, r.URL.Path)
}

// fail answers with err; what is not a refusal is this server's own trouble, logged in full.
func (h *Hub) fail(w http.ResponseWriter, r *http.Request, err error) {
	var f *refusal
	if !errors.As(err, &f) {
		h.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		f = refuse(http.StatusInternalServerError, "UNKNOWN", "the registry failed: see its log")
		if errors.Is(err, unix.ENOSPC) {
			f = refuse(http.StatusInsufficientStorage, "UNKNOWN", "no space left on the registry's disk")
		}
	}
	writeJSON(w, f.status, map[string]any{"errors": []any{
		map[string]any{"code": f.code, "message": f.message, "detail": f.detail},
	}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.WriteHeader(status)
	w.Write(data)
}
