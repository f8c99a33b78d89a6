package engineapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
)

// containerLister is the verbs that look at containers.
type containerLister interface {
	List(ctx context.Context, o enginecontainer.ListOptions) ([]container.Summary, error)
	Inspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error)
	Top(ctx context.Context, ref string, psArgs []string) (container.TopResponse, error)
	Wait(ctx context.Context, ref string, c container.WaitCondition) (<-chan container.WaitResponse, error)
}

type containerView struct{ s containerLister }

func (d containerView) list(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	f, err := filters(r)
	if err != nil {
		return err
	}
	limit, err := number(r, "limit", 0)
	if err != nil {
		return err
	}
	list, err := d.s.List(r.Context(), enginecontainer.ListOptions{
		All: boolean(r, "all"), Size: boolean(r, "size"), Limit: int(limit), Filters: f,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, orEmpty(list))
}

func (d containerView) inspect(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	c, err := d.s.Inspect(r.Context(), r.PathValue("id"), boolean(r, "size"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, c)
}

func (d containerView) top(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	top, err := d.s.Top(r.Context(), r.PathValue("id"), strings.Fields(r.FormValue("ps_args")))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, top)
}

// wait sends its headers as soon as the waiting is registered: a client that has them can start
// the container and misses no exit.
func (d containerView) wait(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	cond := container.WaitCondition(r.FormValue("condition"))
	switch cond {
	case "":
		cond = container.WaitConditionNotRunning
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return fault.Invalid("invalid condition: %q", string(cond))
	}
	c, err := d.s.Wait(r.Context(), r.PathValue("id"), cond)
	if err != nil {
		return err
	}
	start(w, "application/json")
	select {
	case res, ok := <-c:
		if !ok {
			return fault.Unavailable("waiting for container %s ended", r.PathValue("id"))
		}
		return writeLine(w, res)
	case <-r.Context().Done():
		return r.Context().Err()
	}
}
