package engineapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
)

// containerStreams is the verbs with a stream.
type containerStreams interface {
	Attach(ctx context.Context, ref string, o enginecontainer.AttachOptions) (*enginecontainer.Stream, error)
	Resize(ctx context.Context, ref string, width, height uint16) error
	Stats(ctx context.Context, ref string) (container.StatsResponse, error)
}

type streamDoor struct{ s containerStreams }

func attachOptions(r *http.Request) (enginecontainer.AttachOptions, error) {
	if err := parseForm(r); err != nil {
		return enginecontainer.AttachOptions{}, err
	}
	return enginecontainer.AttachOptions{
		Stdin: boolean(r, "stdin"), Stdout: boolean(r, "stdout"), Stderr: boolean(r, "stderr"),
		Stream: boolean(r, "stream"), Logs: boolean(r, "logs"), DetachKeys: r.FormValue("detachKeys"),
	}, nil
}

func (d streamDoor) attach(w http.ResponseWriter, r *http.Request) error {
	o, err := attachOptions(r)
	if err != nil {
		return err
	}
	// The attachment lives as long as the connection, which is no longer the request's once taken over.
	s, err := d.s.Attach(context.WithoutCancel(r.Context()), r.PathValue("id"), o)
	if err != nil {
		return err
	}
	conn, sent, err := takeOver(w, r, streamType(s.Terminal))
	if err != nil {
		if s.Conn != nil {
			s.Conn.Close()
		}
		return err
	}
	connect(conn, sent, s, o.Stdin, nil)
	return nil
}

func (d streamDoor) resize(w http.ResponseWriter, r *http.Request) error {
	return resizeWith(w, r, d.s.Resize)
}

func resizeWith(w http.ResponseWriter, r *http.Request, f func(ctx context.Context, ref string, width, height uint16) error) error {
	if err := parseForm(r); err != nil {
		return err
	}
	height, err := strconv.ParseUint(r.FormValue("h"), 10, 16)
	if err != nil {
		return fault.Invalid("invalid resize height %q: %w", r.FormValue("h"), err)
	}
	width, err := strconv.ParseUint(r.FormValue("w"), 10, 16)
	if err != nil {
		return fault.Invalid("invalid resize width %q: %w", r.FormValue("w"), err)
	}
	if err := f(r.Context(), r.PathValue("id"), uint16(width), uint16(height)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// statsInterval is how often a stats stream has a sample.
var statsInterval = time.Second

// stats answers one sample (one-shot, or stream=0 with the one before it), or one a second.
func (d streamDoor) stats(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	ctx, id := r.Context(), r.PathValue("id")
	stream, oneShot := booleanOr(r, "stream", true), boolean(r, "one-shot")
	if stream && oneShot {
		return fault.Invalid("cannot have stream=true and one-shot=true")
	}
	last, err := d.s.Stats(ctx, id)
	if err != nil {
		return err
	}
	if oneShot {
		return writeJSON(w, http.StatusOK, last)
	}
	start(w, "application/json")
	if stream {
		if err := writeLine(w, last); err != nil {
			return err
		}
	}
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := d.s.Stats(ctx, id)
		if err != nil {
			return err
		}
		now.PreRead, now.PreCPUStats = last.Read, last.CPUStats
		if err := writeLine(w, now); err != nil || !stream {
			return err
		}
		last = now
	}
}

func noCheckpoints(http.ResponseWriter, *http.Request) error {
	return fault.Unsupported("checkpoints are not supported by this engine")
}
