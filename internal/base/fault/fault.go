// Package fault makes the errors that cross boxes. A fault is a sentence for a
// person (what failed, which object, what to do) that belongs to one of a few
// classes; the class decides the HTTP status at the door and the exit code in
// the command line. The classes are containerd's errdefs, so errors.Is and
// errdefs.IsNotFound work on every fault and on everything that wraps one.
//
//	return fault.NotFound("No such container: %s", name)
//	return fmt.Errorf("cannot start container %s: %w", name, err) // keeps err's class
package fault

import (
	"fmt"

	"github.com/containerd/errdefs"
)

type fault struct {
	class error
	err   error
}

func (f *fault) Error() string   { return f.err.Error() }
func (f *fault) Unwrap() []error { return []error{f.err, f.class} }

func classed(class error, format string, args []any) error {
	return &fault{class: class, err: fmt.Errorf(format, args...)}
}

// NotFound says that the named object does not exist (HTTP 404).
func NotFound(format string, args ...any) error { return classed(errdefs.ErrNotFound, format, args) }

// Invalid says that the request can never succeed as it is (HTTP 400).
func Invalid(format string, args ...any) error {
	return classed(errdefs.ErrInvalidArgument, format, args)
}

// Conflict says that the state of an object or the use of a name forbids the request now (HTTP 409).
func Conflict(format string, args ...any) error { return classed(errdefs.ErrConflict, format, args) }

// NotModified says that the object is already in the state that was asked for (HTTP 304).
func NotModified(format string, args ...any) error {
	return classed(errdefs.ErrNotModified, format, args)
}

// Unauthorized says that credentials are missing or wrong (HTTP 401).
func Unauthorized(format string, args ...any) error {
	return classed(errdefs.ErrUnauthenticated, format, args)
}

// Forbidden says that the caller may not do this (HTTP 403).
func Forbidden(format string, args ...any) error {
	return classed(errdefs.ErrPermissionDenied, format, args)
}

// Unavailable says that a resource is missing for now and a retry may succeed (HTTP 503).
func Unavailable(format string, args ...any) error {
	return classed(errdefs.ErrUnavailable, format, args)
}

// Unsupported says that Tare does not do this (HTTP 501).
func Unsupported(format string, args ...any) error {
	return classed(errdefs.ErrNotImplemented, format, args)
}

// Internal says that something broke that the caller can't mend (HTTP 500).
func Internal(format string, args ...any) error { return classed(errdefs.ErrInternal, format, args) }
