package registry

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// tries is how often a request is made before its failure is reported.
const tries = 6

// longestPause bounds what a registry may ask for with Retry-After.
const longestPause = 60 * time.Second

// backoff doubles from 250 ms to 8 s, with up to a half added by chance.
func backoff(try int) time.Duration {
	d := min(250*time.Millisecond<<(try-1), 8*time.Second)
	return d + rand.N(d/2)
}

// retryAfter reads the header of that name (RFC 9110, 10.2.3), 0 if there is none.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if s, err := strconv.Atoi(v); err == nil && s >= 0 {
		return min(time.Duration(s)*time.Second, longestPause)
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(time.Until(t), 0), longestPause)
	}
	return 0
}

// passing tells whether err may go away by itself.
func passing(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if e := asError(err); e != nil {
		switch e.Status {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	if errdefs.IsPermissionDenied(err) || errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) || errdefs.IsUnauthorized(err) {
		return false
	}
	s := err.Error()
	for _, lasting := range []string{"x509: ", "server gave HTTP response", "no such host", "unsupported protocol scheme"} {
		if strings.Contains(s, lasting) {
			return false
		}
	}
	return true
}

// sleep waits before the try-th repetition after err; it returns ctx's error as soon as there is one.
func (c *Client) sleep(ctx context.Context, try int, err error) error {
	d := c.pause(try)
	if e := asError(err); e != nil && e.retryAfter > 0 {
		d = e.retryAfter
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
