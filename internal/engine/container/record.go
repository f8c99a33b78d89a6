package container

import (
	"encoding/json"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/files"
	"tare/internal/engine/spec"
)

const recordName = "record.json"

// record is a container as it lies on the disk.
type record struct {
	ID         string
	Name       string // without slash
	Created    time.Time
	Image      string // id, "sha256:…"
	Platform   ocispec.Platform
	Manifest   *ocispec.Descriptor `json:",omitempty"`
	Config     *container.Config
	HostConfig *container.HostConfig
	Mounts     []mounted `json:",omitempty"`
	// Networks are the wanted endpoints by network name; Joined is what a running container got of them, and Ports.
	Networks map[string]*network.EndpointSettings `json:",omitempty"`
	Joined   map[string]*network.EndpointSettings `json:",omitempty"`
	Ports    network.PortMap                      `json:",omitempty"`
	State    state
}

// mounted is a mount as it is reported and as it is built.
type mounted struct {
	Point     container.MountPoint
	Spec      spec.Mount
	Anonymous bool `json:",omitempty"` // a volume made for this container
}

// state is what changes while a container lives.
type state struct {
	Status       container.ContainerState
	Pid          int    `json:",omitempty"`
	ExitCode     int    `json:",omitempty"`
	Error        string `json:",omitempty"`
	OOMKilled    bool   `json:",omitempty"`
	StartedAt    time.Time
	FinishedAt   time.Time
	RestartCount int               `json:",omitempty"`
	ByHand       bool              `json:",omitempty"` // a person stopped it: unless-stopped leaves it alone
	Health       *container.Health `json:",omitempty"`
}

func (s state) running() bool {
	return s.Status == container.StateRunning || s.Status == container.StatePaused
}

// save writes a record; it waits for no disk.
func (p *parts) save(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return files.Write(filepath.Join(p.dir(r.ID), recordName), data, 0o600, files.Fast)
}
