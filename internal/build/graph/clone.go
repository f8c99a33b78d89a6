package graph

import (
	"maps"
	"slices"
)

// clone copies a config as deep as instructions change it. A new image has a creation time of its own.
func clone(c Config) Config {
	c.Created = nil
	c.History = slices.Clone(c.History)
	c.RootFS.DiffIDs = slices.Clone(c.RootFS.DiffIDs)
	c.Config.Env = slices.Clone(c.Config.Env)
	c.Config.OnBuild = slices.Clone(c.Config.OnBuild)
	c.Config.Labels = maps.Clone(c.Config.Labels)
	c.Config.Volumes = maps.Clone(c.Config.Volumes)
	c.Config.ExposedPorts = maps.Clone(c.Config.ExposedPorts)
	return c
}
