package engineapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
	"tare/internal/runtime/client"
)

// execService is what the door of execs opens to.
type execService interface {
	Create(ctx context.Context, ref string, req container.ExecCreateRequest) (id string, err error)
	Start(ctx context.Context, id string, req container.ExecStartRequest) (*enginecontainer.Stream, error)
	Inspect(ctx context.Context, id string) (container.ExecInspectResponse, error)
	Resize(ctx context.Context, id string, width, height uint16) error
}

type execDoor struct{ s execService }

func (d execDoor) create(w http.ResponseWriter, r *http.Request) error {
	var req container.ExecCreateRequest
	if err := readJSON(w, r, &req, true); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return fault.Invalid("No exec command specified")
	}
	id, err := d.s.Create(r.Context(), r.PathValue("id"), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.ExecCreateResponse{ID: id})
}

// start runs an exec. That its program can't be executed is told in the stream, as Docker
// does, for the client reads the exit code (126, 127) afterwards; every other error is an answer of its own.
func (d execDoor) start(w http.ResponseWriter, r *http.Request) error {
	var req container.ExecStartRequest
	if err := readJSON(w, r, &req, false); err != nil {
		return err
	}
	id := r.PathValue("id")
	inspected, err := d.s.Inspect(r.Context(), id)
	if err != nil {
		return err
	}
	if !req.Tty {
		req.ConsoleSize = nil
	}
	s, err := d.s.Start(context.WithoutCancel(r.Context()), id, req)
	if req.Detach {
		if err == nil {
			w.WriteHeader(http.StatusOK)
		}
		return err
	}
	var notExecuted *client.ExecError
	if err != nil && !errors.As(err, &notExecuted) {
		return err
	}
	terminal := inspected.ProcessConfig != nil && inspected.ProcessConfig.Tty
	conn, sent, herr := takeOver(w, r, streamType(terminal))
	if herr != nil {
		if s != nil && s.Conn != nil {
			s.Conn.Close()
		}
		return herr
	}
	if err != nil {
		defer conn.Close()
		out := logWriter{w: conn, framed: !terminal}
		return out.frame(2, fmt.Appendf(nil, "%v\r\n", err))
	}
	connect(conn, sent, s, inspected.OpenStdin)
	return nil
}

func (d execDoor) resize(w http.ResponseWriter, r *http.Request) error {
	return resizeWith(w, r, d.s.Resize)
}

func (d execDoor) inspect(w http.ResponseWriter, r *http.Request) error {
	e, err := d.s.Inspect(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, e)
}
