package container

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// listFilter is GET /containers/json's filters, checked.
type listFilter struct {
	args          filter.Args
	all           bool
	before, since time.Time
	exited        []int
	ancestors     map[string]bool // image ids
	names         []*regexp.Regexp
	publish       []network.PortRange
	expose        []network.PortRange
	networks      []string // names and ids
	isTask        bool
}

func newFilter(s *Service, o ListOptions) (*listFilter, error) {
	a := o.Filters
	if err := a.Only("ancestor", "before", "expose", "exited", "health", "id", "isolation", "is-task", "label", "label!", "name", "network", "publish", "since", "status", "volume"); err != nil {
		return nil, err
	}
	f := &listFilter{args: a, all: o.All || o.Limit > 0 || a.Has("status") || a.Has("exited") || a.Has("before") || a.Has("since")}
	var err error
	if f.isTask, err = a.Bool("is-task", false); err != nil {
		return nil, err
	}
	for _, v := range a["exited"] {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, fault.Invalid("invalid filter 'exited=%s': %w", v, err)
		}
		f.exited = append(f.exited, n)
	}
	for _, v := range a["status"] {
		if err := container.ValidateContainerState(container.ContainerState(v)); err != nil {
			return nil, fault.Invalid("invalid filter 'status=%s': %w", v, err)
		}
	}
	for _, v := range a["health"] {
		if err := container.ValidateHealthStatus(container.HealthStatus(v)); err != nil {
			return nil, fault.Invalid("invalid filter 'health=%s': %w", v, err)
		}
	}
	for _, v := range a["name"] {
		re, err := regexp.Compile(v)
		if err != nil {
			re = regexp.MustCompile(regexp.QuoteMeta(v))
		}
		f.names = append(f.names, re)
	}
	for _, v := range a["before"] {
		e, err := s.index.find(v)
		if err != nil {
			return nil, err
		}
		f.before = e.snapshot().Created
	}
	for _, v := range a["since"] {
		e, err := s.index.find(v)
		if err != nil {
			return nil, err
		}
		f.since = e.snapshot().Created
	}
	for _, key := range []string{"publish", "expose"} {
		for _, v := range a[key] {
			if strings.Contains(v, ":") {
				return nil, fault.Invalid("filter for '%s' should not contain ':': %s", key, v)
			}
			r, err := network.ParsePortRange(v)
			if err != nil {
				return nil, fault.Invalid("error while looking up for %s %s: %w", key, v, err)
			}
			if key == "publish" {
				f.publish = append(f.publish, r)
			} else {
				f.expose = append(f.expose, r)
			}
		}
	}
	if a.Has("ancestor") {
		f.ancestors = ancestors(s, a["ancestor"])
	}
	for _, v := range a["network"] {
		f.networks = append(f.networks, v)
		if n, err := s.networks.Get(v); err == nil {
			f.networks = append(f.networks, n.Name, n.ID)
		}
	}
	return f, nil
}

// ancestors are the ids of the images named, and of the containers' images that are made from them.
func ancestors(s *Service, refs []string) map[string]bool {
	out := map[string]bool{}
	for _, ref := range refs {
		base, err := s.cfg.Images.Get(ref)
		if err != nil {
			continue
		}
		out[base.ID.String()] = true
		for _, e := range s.index.all() {
			id := e.snapshot().Image
			if out[id] {
				continue
			}
			img, err := s.cfg.Images.Get(id)
			if err != nil || len(img.Layers) < len(base.Layers) || len(base.Layers) == 0 {
				continue
			}
			above := true
			for i, l := range base.Layers {
				above = above && img.Layers[i].DiffID == l.DiffID
			}
			out[id] = above
		}
	}
	return out
}

func (f *listFilter) match(r record) bool {
	a := f.args
	if !f.all && !r.State.running() && r.State.Status != container.StateRestarting || f.isTask {
		return false
	}
	switch {
	case !f.before.IsZero() && !r.Created.Before(f.before), !f.since.IsZero() && !r.Created.After(f.since):
		return false
	case len(f.names) > 0 && !slices.ContainsFunc(f.names, func(re *regexp.Regexp) bool { return re.MatchString(r.Name) || re.MatchString("/"+r.Name) }):
		return false
	case !a.Match("id", func(v string) bool { return strings.HasPrefix(r.ID, v) }), !a.Labels(r.Config.Labels):
		return false
	case !a.Match("status", func(v string) bool { return string(r.State.Status) == v }):
		return false
	case len(f.exited) > 0 && (r.State.Status != container.StateExited || !slices.Contains(f.exited, r.State.ExitCode)):
		return false
	case f.ancestors != nil && !f.ancestors[r.Image]:
		return false
	case !a.Match("health", func(v string) bool {
		h := container.NoHealthcheck
		if r.State.Health != nil && r.State.Health.Status != "" {
			h = r.State.Health.Status
		}
		return string(h) == v
	}):
		return false
	case !a.Match("volume", func(v string) bool {
		return slices.ContainsFunc(r.Mounts, func(m mounted) bool {
			return m.Point.Name == v && v != "" || m.Point.Destination == v || m.Point.Source == v
		})
	}):
		return false
	case !a.Match("isolation", func(v string) bool { return v == "default" }):
		return false
	}
	if len(f.networks) > 0 {
		found := slices.Contains(f.networks, string(r.HostConfig.NetworkMode)) && len(r.Networks) == 0
		for name, e := range reported(r) {
			found = found || slices.Contains(f.networks, name) || e != nil && e.NetworkID != "" && slices.Contains(f.networks, e.NetworkID)
		}
		if !found {
			return false
		}
	}
	in := func(ranges []network.PortRange, p network.Port) bool {
		return slices.ContainsFunc(ranges, func(x network.PortRange) bool {
			return p.Num() >= x.Start() && p.Num() <= x.End() && p.Proto() == x.Proto()
		})
	}
	if len(f.publish) > 0 {
		found := false
		for p, bs := range r.HostConfig.PortBindings {
			found = found || in(f.publish, p) && len(bs) >= 0
		}
		for p := range r.Ports {
			found = found || in(f.publish, p) && len(r.Ports[p]) > 0
		}
		if !found {
			return false
		}
	}
	if len(f.expose) > 0 {
		found := false
		for p := range r.Config.ExposedPorts {
			found = found || in(f.expose, p)
		}
		if !found {
			return false
		}
	}
	return true
}
