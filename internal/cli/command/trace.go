package command

import (
	"fmt"
	"net/http"
	"time"

	"github.com/moby/moby/client"
)

// trace prints each request and its answer's status and time to stderr.
func (e *Env) trace() []client.Opt {
	start := time.Now()
	return []client.Opt{
		client.WithHTTPRequestHook(func(r *http.Request) error {
			fmt.Fprintf(e.Stderr, "%8.3fms > %s %s\n", ms(start), r.Method, r.URL.RequestURI())
			return nil
		}),
		client.WithHTTPResponseHook(func(r *http.Response) {
			fmt.Fprintf(e.Stderr, "%8.3fms < %s %s: %s\n", ms(start), r.Request.Method, r.Request.URL.RequestURI(), r.Status)
		}),
	}
}

func ms(since time.Time) float64 { return float64(time.Since(since).Microseconds()) / 1000 }
