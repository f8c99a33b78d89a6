// Package container is the engine's containers: desired state (the record a
// person created) and actual state (what the supervisor reports), and the verbs between them.
//
// A container's folder is DATA_ROOT/containers/<id>/: record.json, config.json
// (the OCI bundle), upper/ and work/, hosts, hostname, resolv.conf, and
// <id>-json.log (written by the supervisor).
//
// The engine is the parent of nothing: start = read records, ask the supervisor what runs, mend the rest.
package container

import (
	"context"
	"io"
	"net"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// Service is the containers of one engine. Every ref is a name, id or unique id prefix;
// NotFound is Docker's "No such container: x". Safe for concurrent use.
type Service struct{}

// CreateRequest is POST /containers/create.
type CreateRequest struct {
	Name       string // "" lets the engine choose one
	Platform   *ocispec.Platform
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig
}

func (s *Service) Create(ctx context.Context, req CreateRequest) (container.CreateResponse, error) {
	return container.CreateResponse{}, fault.Unsupported("")
}
func (s *Service) Start(ctx context.Context, ref string) error { return fault.Unsupported("") }

// Stop sends signal ("" is the container's own), waits timeout seconds (nil: the container's, or 10; -1: forever), then kills.
func (s *Service) Stop(ctx context.Context, ref, signal string, timeout *int) error {
	return fault.Unsupported("")
}
func (s *Service) Restart(ctx context.Context, ref, signal string, timeout *int) error {
	return fault.Unsupported("")
}
func (s *Service) Kill(ctx context.Context, ref, signal string) error { return fault.Unsupported("") }
func (s *Service) Pause(ctx context.Context, ref string) error        { return fault.Unsupported("") }
func (s *Service) Unpause(ctx context.Context, ref string) error      { return fault.Unsupported("") }
func (s *Service) Rename(ctx context.Context, ref, name string) error { return fault.Unsupported("") }
func (s *Service) Update(ctx context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error) {
	return container.UpdateResponse{}, fault.Unsupported("")
}

// RemoveOptions are DELETE /containers/{id}'s.
type RemoveOptions struct{ Force, Volumes, Link bool }

func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	return fault.Unsupported("")
}

// Wait registers at once and delivers one response when the condition holds.
func (s *Service) Wait(ctx context.Context, ref string, c container.WaitCondition) (<-chan container.WaitResponse, error) {
	return nil, fault.Unsupported("")
}

// ListOptions are GET /containers/json's.
type ListOptions struct {
	All, Size bool
	Limit     int
	Filters   filter.Args
}

func (s *Service) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	return nil, fault.Unsupported("")
}
func (s *Service) Inspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error) {
	return container.InspectResponse{}, fault.Unsupported("")
}

// AttachOptions are POST /containers/{id}/attach's. Logs asks for the output so far first.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Stream, Logs          bool
	DetachKeys            string
}

// Stream is a client's connection to a process. Conn carries what runtime/client.Attach describes.
type Stream struct {
	Conn       *net.UnixConn
	Terminal   bool      // raw, not multiplexed
	Past       io.Reader // to be sent first, nil without Logs; already in Conn's format
	DetachKeys []byte    // the sequence that ends the attachment, nil: none
}

func (s *Service) Attach(ctx context.Context, ref string, o AttachOptions) (*Stream, error) {
	return nil, fault.Unsupported("")
}
func (s *Service) Resize(ctx context.Context, ref string, width, height uint16) error {
	return fault.Unsupported("")
}
func (s *Service) Top(ctx context.Context, ref string, psArgs []string) (container.TopResponse, error) {
	return container.TopResponse{}, fault.Unsupported("")
}

// Stats samples a container now. PreCPUStats is empty: the door keeps the sample before.
func (s *Service) Stats(ctx context.Context, ref string) (container.StatsResponse, error) {
	return container.StatsResponse{}, fault.Unsupported("")
}
func (s *Service) Prune(ctx context.Context, f filter.Args) ([]string, uint64, error) {
	return nil, 0, fault.Unsupported("")
}

// Files is what other services (logs, archive, commit) may know of a container.
type Files struct {
	ID, Name  string
	Config    *container.Config
	ImageID   string
	Lower     []string // overlay lower folders, topmost first
	Upper     string
	Work      string
	Pid       int // 0 when not running: its root is then /proc/<pid>/root
	Terminal  bool
	LogPath   string // "" if the log driver keeps nothing readable
	LogDriver string
	Running   func() bool
	Mounts    []container.MountPoint
	// Hold keeps the container from being removed until release is called.
	Release func()
}

// Open gives access to a container's files; call Release when done.
func (s *Service) Open(ctx context.Context, ref string) (*Files, error) {
	return nil, fault.Unsupported("")
}

// Connect and Disconnect change the networks of a container, running or not.
func (s *Service) Connect(ctx context.Context, networkRef, ref string, e *network.EndpointSettings) error {
	return fault.Unsupported("")
}
func (s *Service) Disconnect(ctx context.Context, networkRef, ref string, force bool) error {
	return fault.Unsupported("")
}
