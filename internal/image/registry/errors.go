package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/distribution/reference"

	"tare/internal/base/fault"
)

// Error is a registry's refusal (distribution-spec, "Error Codes").
type Error struct {
	Status     int // HTTP
	Method     string
	URL        string
	Codes      []Code
	body       string        // what came instead of codes
	retryAfter time.Duration // what the registry asked for, 0 if nothing
}

// Code is one entry of a refusal.
type Code struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}

// Error uses Docker's form, "manifest unknown: manifest unknown".
func (e *Error) Error() string {
	var parts []string
	for _, c := range e.Codes {
		s := strings.ToLower(strings.ReplaceAll(c.Code, "_", " "))
		if c.Message != "" {
			s += ": " + c.Message
		}
		parts = append(parts, s)
	}
	if len(parts) > 0 {
		return strings.Join(parts, "\n")
	}
	s := fmt.Sprintf("%s %q: unexpected status %d %s", e.Method, e.URL, e.Status, http.StatusText(e.Status))
	if e.body != "" {
		s += ": " + e.body
	}
	return s
}

// Has tells whether the refusal carries a code.
func (e *Error) Has(code string) bool {
	for _, c := range e.Codes {
		if c.Code == code {
			return true
		}
	}
	return false
}

// readError turns an answer of status 400 or more into an Error; the body is closed.
func (c *Client) readError(rs *http.Response) *Error {
	answer, done := c.small(rs.Body)
	defer done()
	e := &Error{Status: rs.StatusCode, retryAfter: retryAfter(rs.Header)}
	if rs.Request != nil {
		e.Method, e.URL = rs.Request.Method, rs.Request.URL.Redacted()
	}
	data, _ := io.ReadAll(io.LimitReader(answer, 64<<10))
	var body struct {
		Errors  []Code `json:"errors"`
		Details string `json:"details"` // token servers
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &body) == nil {
		e.Codes = body.Errors
		if len(e.Codes) == 0 {
			e.body = body.Details + body.Message
		}
		return e
	}
	e.body = strings.TrimSpace(string(data[:min(len(data), 200)]))
	return e
}

// asError finds the refusal in err, nil if there is none.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// denied tells whether a refusal is about rights; a registry says so of repositories that don't exist, too.
func (e *Error) denied() bool {
	return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden ||
		e.Has("UNAUTHORIZED") || e.Has("DENIED") || e.Has("NAME_UNKNOWN")
}

// pullError gives err Docker's words and class; ref is what was asked for.
func pullError(ref reference.Named, err error) error {
	e := asError(err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case e == nil:
		return err
	case e.denied():
		return fault.NotFound("pull access denied for %s, repository does not exist or may require 'docker login': %w",
			reference.FamiliarName(ref), wordsOf(e, "denied", "requested access to the resource is denied"))
	case e.Status == http.StatusNotFound:
		return fault.NotFound("manifest for %s not found: %w", reference.FamiliarString(ref),
			wordsOf(e, "manifest unknown", "manifest unknown"))
	case e.Status == http.StatusTooManyRequests:
		return fault.Unavailable("%w", wordsOf(e, "toomanyrequests", "the registry "+reference.Domain(ref)+" asks to try again later"))
	case e.Status >= 500:
		return fault.Unavailable("registry %s failed: %w", reference.Domain(ref), err)
	}
	return fault.Invalid("registry %s refused %s: %w", reference.Domain(ref), reference.FamiliarString(ref), err)
}

// pushError does the same for writes.
func pushError(ref reference.Named, err error) error {
	e := asError(err)
	switch {
	case err == nil, e == nil:
		return err
	case e.Status == http.StatusUnauthorized || e.Has("UNAUTHORIZED"):
		return fault.Unauthorized("%w", wordsOf(e, "unauthorized", "authentication required"))
	case e.denied() && !e.Has("NAME_UNKNOWN"):
		return fault.Forbidden("%w", wordsOf(e, "denied", "requested access to the resource is denied"))
	case e.Status == http.StatusNotFound:
		return fault.NotFound("%w", err)
	case e.Status >= 500:
		return fault.Unavailable("registry %s failed: %w", reference.Domain(ref), err)
	}
	return fault.Invalid("registry %s refused the push of %s: %w", reference.Domain(ref), reference.FamiliarName(ref), err)
}

// wordsOf keeps a refusal that carries codes and puts code and message in where it has none.
func wordsOf(e *Error, code, message string) error {
	if len(e.Codes) > 0 {
		return e
	}
	return &Error{Status: e.Status, Method: e.Method, URL: e.URL, Codes: []Code{{Code: code, Message: message}}}
}

// connectionError adds what to do when a plain HTTP server was spoken to with TLS.
func connectionError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fault.Unavailable("%w (a registry without TLS has to be listed in insecure-registries of daemon.json)", err)
	case strings.Contains(err.Error(), "x509: "):
		return fault.Unavailable("%w (put its authority into /etc/docker/certs.d/HOST/ca.crt, or list the registry in insecure-registries)", err)
	}
	return fault.Unavailable("%w", err)
}
