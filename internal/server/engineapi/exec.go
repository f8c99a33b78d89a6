package engineapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
)

// execService is what the door of execs opens to.
type execService interface {
	Create(ctx context.Context, ref string, req container.ExecCreateRequest) (id string, err error)
	Start(ctx context.Context, id string, req container.ExecStartRequest) (*enginecontainer.Stream, error)
	Inspect(ctx context.Context, id string) (container.ExecInspectResponse, error)
	Resize(ctx context.Context, id string, width, height uint16) error
	Wait(ctx context.Context, id string) (int, error)
}

// settle is how long the end of an exec's output may be ahead of its exit.
const settle = 2 * time.Second

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
	if err != nil && !d.attempted(r.Context(), id, err) {
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
	// The client asks for the exit code as soon as the stream ends; it has to be known by then.
	connect(conn, sent, s, inspected.OpenStdin, func() {
		ctx, cancel := context.WithTimeout(context.Background(), settle)
		defer cancel()
		d.s.Wait(ctx, id)
	})
	return nil
}

// attempted tells whether an exec failed in its container, and so has an exit code, instead of being refused.
func (d execDoor) attempted(ctx context.Context, id string, err error) bool {
	if errdefs.IsConflict(err) || errdefs.IsNotFound(err) {
		return false
	}
	e, err := d.s.Inspect(ctx, id)
	return err == nil && !e.Running && e.ExitCode != nil
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
