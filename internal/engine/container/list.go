package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"tare/internal/base/files"
	"tare/internal/engine/spec"
)

// List returns the containers that match, newest first: the running ones, or all with All, Limit or a filter on the state.
func (s *Service) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	f, err := newFilter(s, o)
	if err != nil {
		return nil, err
	}
	out := []container.Summary{}
	for _, e := range s.index.all() {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		rec := e.snapshot()
		if !f.match(rec) {
			continue
		}
		sum := s.summary(rec)
		if o.Size {
			if sum.SizeRw, sum.SizeRootFs, err = s.sizes(e, rec); err != nil {
				return nil, err
			}
			if o.Disk {
				if sum.SizeRw, err = files.Usage(s.dir(e.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return nil, err
				}
			}
		}
		out = append(out, sum)
		if o.Limit > 0 && len(out) == o.Limit {
			break
		}
	}
	return out, nil
}

func (p *parts) summary(r record) container.Summary {
	sum := container.Summary{
		ID: r.ID, Names: []string{"/" + r.Name}, Image: p.imageName(r), ImageID: r.Image, ImageManifestDescriptor: nil,
		Command: strings.Join(quoted(spec.Command(r.Config)), " "), Created: r.Created.Unix(), Labels: r.Config.Labels,
		State: r.State.Status, Status: statusText(r.State, time.Now()), Ports: ports(r), Mounts: points(r),
	}
	if sum.Labels == nil {
		sum.Labels = map[string]string{}
	}
	sum.HostConfig.NetworkMode, sum.HostConfig.Annotations = string(r.HostConfig.NetworkMode), r.HostConfig.Annotations
	sum.NetworkSettings = &container.NetworkSettingsSummary{Networks: reported(r)}
	sum.Health = &container.HealthSummary{Status: container.NoHealthcheck}
	if h := r.State.Health; h != nil {
		sum.Health = &container.HealthSummary{Status: h.Status, FailingStreak: h.FailingStreak}
	}
	return sum
}

// imageName is the name that the container was created from, or the image's id when that name means another image by now.
func (p *parts) imageName(r record) string {
	if strings.HasPrefix(r.Image, r.Config.Image) || strings.HasPrefix(r.Image, "sha256:"+r.Config.Image) {
		return r.Config.Image
	}
	if img, err := p.cfg.Images.Get(r.Config.Image); err != nil || img.ID.String() != r.Image {
		return r.Image
	}
	return r.Config.Image
}

// quoted puts arguments with spaces in single quotes, as ps shows them.
func quoted(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if i > 0 && strings.Contains(a, " ") {
			out[i] = "'" + a + "'"
		}
	}
	return out
}

// statusText is Docker's sentence about a state.
func statusText(s state, now time.Time) string {
	switch s.Status {
	case container.StateRunning:
		up := "Up " + units.HumanDuration(now.Sub(s.StartedAt))
		if s.Health != nil {
			switch s.Health.Status {
			case container.Starting:
				return up + " (health: starting)"
			case container.NoHealthcheck, "":
			default:
				return up + " (" + string(s.Health.Status) + ")"
			}
		}
		return up
	case container.StatePaused:
		return "Up " + units.HumanDuration(now.Sub(s.StartedAt)) + " (Paused)"
	case container.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, units.HumanDuration(now.Sub(s.FinishedAt)))
	case container.StateRemoving:
		return "Removal In Progress"
	case container.StateDead:
		return "Dead"
	case container.StateCreated:
		return "Created"
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, units.HumanDuration(now.Sub(s.FinishedAt)))
}

// ports are the published ports of a running container, and the others that it exposes.
func ports(r record) []container.PortSummary {
	out := []container.PortSummary{}
	if !r.State.running() {
		return out
	}
	for p, bindings := range r.Ports {
		if len(bindings) == 0 {
			out = append(out, container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
		for _, b := range bindings {
			host, err := network.ParsePort(b.HostPort)
			if err != nil {
				continue
			}
			ip := b.HostIP
			if !ip.IsValid() {
				ip = netip.IPv4Unspecified()
			}
			out = append(out, container.PortSummary{IP: ip, PrivatePort: p.Num(), PublicPort: host.Num(), Type: string(p.Proto())})
		}
	}
	if !r.HostConfig.NetworkMode.IsHost() && !r.HostConfig.NetworkMode.IsNone() {
		for p := range r.Config.ExposedPorts {
			if _, published := r.Ports[p]; !published {
				out = append(out, container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
			}
		}
	}
	slices.SortFunc(out, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), cmp.Compare(a.Type, b.Type), a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort))
	})
	return out
}

func points(r record) []container.MountPoint {
	out := []container.MountPoint{}
	for _, m := range r.Mounts {
		if m.Point.Type == mount.TypeTmpfs || m.Point.Destination == "" { // --tmpfs shows in HostConfig only
			if m.Point.Destination == "" {
				continue
			}
		}
		out = append(out, m.Point)
	}
	return out
}

// reported are the endpoints to show: what a running container got, else what is wanted.
func reported(r record) map[string]*network.EndpointSettings {
	if r.State.running() && r.Joined != nil {
		return r.Joined
	}
	return r.endpoints()
}

// familiar is the short form of an image name with its tag.
func familiar(name string) string {
	if n, err := reference.ParseNormalizedNamed(name); err == nil {
		return reference.FamiliarString(reference.TagNameOnly(n))
	}
	return name
}
