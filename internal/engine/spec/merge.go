package spec

import (
	"maps"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
)

// Merge returns the person's config with what it leaves open taken from the
// image, by Docker's rules: the image's command only without an own entrypoint,
// environment and labels by name, volumes and exposed ports united.
func Merge(own *container.Config, image dockerspec.DockerOCIImageConfig) (*container.Config, error) {
	c := *own
	c.ExposedPorts = maps.Clone(own.ExposedPorts)
	for port := range image.ExposedPorts {
		p, err := network.ParsePort(port)
		if err != nil {
			return nil, fault.Invalid("the image exposes an invalid port: %w", err)
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts = network.PortSet{}
		}
		c.ExposedPorts[p] = struct{}{}
	}
	c.Env = slices.Clone(own.Env)
	for _, e := range image.Env {
		name, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(own.Env, func(o string) bool { n, _, _ := strings.Cut(o, "="); return n == name }) {
			c.Env = append(c.Env, e)
		}
	}
	c.Labels = map[string]string{}
	maps.Copy(c.Labels, image.Labels)
	maps.Copy(c.Labels, own.Labels)
	if len(own.Entrypoint) == 0 {
		if len(own.Cmd) == 0 {
			c.Cmd = slices.Clone(image.Cmd)
			c.ArgsEscaped = image.ArgsEscaped
		}
		if own.Entrypoint == nil {
			c.Entrypoint = slices.Clone(image.Entrypoint)
		}
	}
	c.Volumes = maps.Clone(own.Volumes)
	for v := range image.Volumes {
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[v] = struct{}{}
	}
	if c.User == "" {
		c.User = image.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = image.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = image.StopSignal
	}
	if len(c.Shell) == 0 {
		c.Shell = image.Shell
	}
	if len(c.OnBuild) == 0 {
		c.OnBuild = image.OnBuild
	}
	c.Healthcheck = mergeHealth(own.Healthcheck, image.Healthcheck)
	return &c, nil
}

func mergeHealth(own, image *dockerspec.HealthcheckConfig) *dockerspec.HealthcheckConfig {
	if own == nil || image == nil {
		if own == nil {
			return image
		}
		return own
	}
	h := *own
	if len(h.Test) == 0 {
		h.Test = image.Test
	}
	if h.Interval == 0 {
		h.Interval = image.Interval
	}
	if h.Timeout == 0 {
		h.Timeout = image.Timeout
	}
	if h.StartPeriod == 0 {
		h.StartPeriod = image.StartPeriod
	}
	if h.StartInterval == 0 {
		h.StartInterval = image.StartInterval
	}
	if h.Retries == 0 {
		h.Retries = image.Retries
	}
	return &h
}
