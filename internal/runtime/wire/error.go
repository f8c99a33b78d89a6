package wire

import (
	"errors"

	"github.com/containerd/errdefs"

	"tare/internal/base/fault"
)

// Error is a fault on the wire. Errno is set only when a container's program
// could not be executed; Program and Code then belong to it.
type Error struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	Program string `json:"program,omitempty"`
	Errno   int    `json:"errno,omitempty"`
	Code    int    `json:"code,omitempty"` // what a shell would exit with
}

// classes pairs the names on the wire with the classes of base/fault.
var classes = []struct {
	name  string
	class error
	make  func(format string, args ...any) error
}{
	{"notfound", errdefs.ErrNotFound, fault.NotFound},
	{"invalid", errdefs.ErrInvalidArgument, fault.Invalid},
	{"conflict", errdefs.ErrConflict, fault.Conflict},
	{"notmodified", errdefs.ErrNotModified, fault.NotModified},
	{"unauthorized", errdefs.ErrUnauthenticated, fault.Unauthorized},
	{"forbidden", errdefs.ErrPermissionDenied, fault.Forbidden},
	{"unavailable", errdefs.ErrUnavailable, fault.Unavailable},
	{"unsupported", errdefs.ErrNotImplemented, fault.Unsupported},
	{"internal", errdefs.ErrInternal, fault.Internal},
}

// FromError describes err for the wire; an error without a class is internal.
func FromError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	for _, c := range classes {
		if errors.Is(err, c.class) {
			return &Error{Class: c.name, Message: err.Error()}
		}
	}
	return &Error{Class: "internal", Message: err.Error()}
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// Fault returns e as an error of its class.
func (e *Error) Fault() error {
	for _, c := range classes {
		if c.name == e.Class {
			return c.make("%s", e.Message)
		}
	}
	return fault.Internal("%s", e.Message)
}
