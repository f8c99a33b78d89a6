package engineapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/common"
)

// statuses maps the classes of errors to HTTP; the first that fits counts.
var statuses = []struct {
	is     func(error) bool
	status int
}{
	{errdefs.IsNotFound, http.StatusNotFound},
	{errdefs.IsInvalidArgument, http.StatusBadRequest},
	{errdefs.IsOutOfRange, http.StatusBadRequest},
	{errdefs.IsConflict, http.StatusConflict},
	{errdefs.IsAlreadyExists, http.StatusConflict},
	{errdefs.IsFailedPrecondition, http.StatusConflict},
	{errdefs.IsNotModified, http.StatusNotModified},
	{errdefs.IsUnauthorized, http.StatusUnauthorized},
	{errdefs.IsPermissionDenied, http.StatusForbidden},
	{errdefs.IsUnavailable, http.StatusServiceUnavailable},
	{errdefs.IsNotImplemented, http.StatusNotImplemented},
	{errdefs.IsResourceExhausted, http.StatusInsufficientStorage},
	{func(err error) bool { var m *http.MaxBytesError; return errors.As(err, &m) }, http.StatusRequestEntityTooLarge},
}

// statusOf is 500 for an error without a class.
func statusOf(err error) int {
	for _, s := range statuses {
		if s.is(err) {
			return s.status
		}
	}
	return http.StatusInternalServerError
}

// writeError answers with the error's status and message. A client that went away gets none.
func writeError(w http.ResponseWriter, err error) {
	if errors.Is(err, context.Canceled) {
		// 499 is nginx's word for a client that closed its request; nobody reads it.
		w.WriteHeader(499)
		return
	}
	status := statusOf(err)
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	w.Header().Del("Content-Length")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(common.ErrorResponse{Message: err.Error()})
}
