// Package container is the engine's containers: desired state (the record a
// person created) and actual state (what the supervisor reports), and the verbs between them.
//
// A container's folder is DATA_ROOT/containers/<id>/: record.json, config.json
// (the OCI bundle), upper/ and work/, hosts, hostname, resolv.conf, and
// <id>-json.log (written by the supervisor).
//
// The engine is the parent of nothing: start = read records, ask the supervisor what runs, mend the rest.
//
// Its parts: Service has the verbs and nothing else. An entry is one container,
// the index finds it by name or id, the launcher starts it, the monitor hears of its
// exit and decides what follows, the remover deletes it, recovery makes all of them after a start.
//
// Locks, in this order: entry.op (one start, removal, rename, update, pause at a
// time; may be held for long), index.mu, entry.mu (fields; held briefly, nothing is called under it that waits).
// Stop, Kill and the monitor take only entry.mu, so a container whose start hangs can still be killed.
package container

import (
	"context"
	"io"
	"net"
	"path/filepath"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/event"
	"tare/internal/base/filter"
	"tare/internal/engine/spec"
	enginevolume "tare/internal/engine/volume"
	"tare/internal/image"
	tarenetwork "tare/internal/network"
	"tare/internal/runtime"
)

// Runtime is what containers need of the supervisor (runtime/client, or the link of package supervisor that survives its loss).
type Runtime interface {
	Create(ctx context.Context, req runtime.Create) (pid int, err error)
	Start(ctx context.Context, id string) error
	Attach(ctx context.Context, req runtime.Attach) (*net.UnixConn, error)
	Signal(ctx context.Context, ref runtime.Ref, sig int) error
	Resize(ctx context.Context, ref runtime.Ref, width, height uint16) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Delete(ctx context.Context, id string) error
	List(ctx context.Context) ([]runtime.State, error)
	Exits() <-chan runtime.Exit // of containers; closed at the end
}

// Images is what containers need of the image store.
type Images interface {
	Get(ref string) (*image.Image, error)
	Lower(img *image.Image) ([]string, error)
	Hold(holder string, ids ...digest.Digest)
	Release(holder string)
}

// Networks is what containers need of the network box.
type Networks interface {
	Get(ref string) (network.Inspect, error)
	Prepare(ctx context.Context, j tarenetwork.Join) (*tarenetwork.Joined, error)
	Join(ctx context.Context, j tarenetwork.Join) (*tarenetwork.Joined, error)
	Leave(ctx context.Context, container string) error
	Connect(ctx context.Context, j tarenetwork.Join, networkRef string) (*network.EndpointSettings, error)
	Disconnect(ctx context.Context, container, networkRef string) error
	Current(container string) *tarenetwork.Joined
	Rename(container, name string)
}

// Volumes is what containers need of the volume service.
type Volumes interface {
	Create(ctx context.Context, req volume.CreateRequest) (*volume.Volume, error)
	Get(name string) (*volume.Volume, error)
	Source(name string) (enginevolume.Source, error)
	Populate(name string, fill func(dir string) error) error
	Remove(ctx context.Context, name string, force bool) error
	Hold(name, holder string) error
	Release(holder string)
}

// Config is what a Service is made of.
type Config struct {
	DataRoot string
	Instance string // the engine's instance name
	Images   Images
	Runtime  Runtime
	Volumes  Volumes
	Bus      *event.Bus
	// OpenNetworks is called once, during Open, with the sandboxes that live (container id → pid).
	OpenNetworks func(ctx context.Context, live map[string]int) (Networks, error)

	// Defaults for containers that don't say.
	CgroupParent string                       // "": "/tare/<instance>"
	Log          container.LogConfig          // type "": json-file
	Ulimits      map[string]*container.Ulimit // by name
	ShmSize      int64                        // bytes; 0: 64 MiB
	IPC          container.IpcMode            // "": private
	CgroupNS     container.CgroupnsMode       // "": private
	Init         bool
	InitProgram  string // what --init runs as pid 1; "" refuses --init
	StopTimeout  int    // seconds; 0: 10
	NoNewPrivs   bool

	DefaultRuntime string                     // "": our own
	Runtimes       map[string]runtime.Foreign // further ones, by name
}

// Service is the containers of one engine. Every ref is a name, id or unique id prefix;
// NotFound is Docker's "No such container: x". Safe for concurrent use.
type Service struct {
	*parts
	index   *index
	launch  *launcher
	monitor *monitor
	remover *remover
}

// parts are what the collaborators share; it has no methods of the API's.
type parts struct {
	cfg      Config
	root     string // DATA_ROOT/containers
	networks Networks
	host     spec.Host
}

func (p *parts) dir(id string) string { return filepath.Join(p.root, id) }

func (p *parts) cgroupParent() string {
	if p.cfg.CgroupParent != "" {
		return p.cfg.CgroupParent
	}
	return "/tare/" + p.cfg.Instance
}

// CreateRequest is POST /containers/create.
type CreateRequest struct {
	Name       string // "" lets the engine choose one
	Platform   *ocispec.Platform
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig
}

// RemoveOptions are DELETE /containers/{id}'s.
type RemoveOptions struct{ Force, Volumes, Link bool }

// ListOptions are GET /containers/json's.
type ListOptions struct {
	All, Size bool
	Disk      bool // with Size: what the container takes on the disk, log and records included
	Limit     int
	Filters   filter.Args
}

// AttachOptions are POST /containers/{id}/attach's. Logs asks for the output so far first.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Stream, Logs          bool
	DetachKeys            string
}

// Stream is a client's connection to a process. Conn carries what runtime/client.Attach describes.
type Stream struct {
	Conn       *net.UnixConn // nil if no stream was asked for
	Terminal   bool          // raw, not multiplexed
	Past       io.Reader     // to be sent first, nil without Logs; already in Conn's format
	DetachKeys []byte        // the sequence that ends the attachment, nil: none
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
	Subpaths  map[string]string // by destination: what of a volume is mounted, where that is not all of it
	// ReadonlyRootfs: nothing may be written outside Mounts.
	ReadonlyRootfs bool
	// Release lets go of the container, which is not removed before.
	Release func()
	// Publish tells what was done with the files: export, archive-path, extract-to-dir.
	Publish func(action string)
}
