// Package build turns a Dockerfile and a context into an image.
//
//	Dockerfile ──parse──▶ stages of instructions (BuildKit's parser packages)
//	           ──graph──▶ steps with inputs, no Dockerfile words left (pure)
//	           ──solve──▶ each step cached, or run: a list of layers and a config
//	           ──export─▶ an image in the store, and its name
//
// A step's key is made of the keys of its inputs and of what it does; COPY's of the digest of what
// it copies. The cache (DATA_ROOT/build) maps keys to layers and survives restarts.
package build

import (
	"context"
	"io"
	"net/netip"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// Request is POST /build's query, decoded.
type Request struct {
	Context     io.Reader // tar, maybe compressed; nil with Remote
	Remote      string    // URL of a Dockerfile or tar
	Dockerfile  string    // path in the context, "Dockerfile" by default
	Tags        []string
	BuildArgs   map[string]*string
	Labels      map[string]string
	Target      string
	Platform    string
	NoCache     bool
	Pull        bool
	Network     string // "default", "host", "none" or a network's name
	ExtraHosts  []string
	ShmSize     int64
	Memory      int64
	CPUShares   int64
	CPUQuota    int64
	CPUPeriod   int64
	CPUSetCPUs  string
	Auths       map[string]registry.AuthConfig
	DNS         []netip.Addr
	Ulimits     []specs.POSIXRlimit
	Quiet       bool
	RemoveSteps bool // accepted, always true: steps leave no containers
}

// Output receives the progress of a build in the classic builder's words: Stream lines
// ("Step 1/3 : FROM …", output of RUN, " ---> Using cache") and the pulls of base images.
type Output interface {
	Stream(text string)
	Status(id, action string, current, total int64)
}

// Service builds. Safe for concurrent use; one step asked for by two builds runs once.
type Service struct{}

// Build runs the request and returns the image's id. A broken Dockerfile is Invalid and
// its message has file, line and the line's text.
func (s *Service) Build(ctx context.Context, req Request, out Output) (digest.Digest, error) {
	return "", fault.Unsupported("")
}

// Cache lists the cache's records; Prune removes those that match and returns their ids and the bytes won.
func (s *Service) Cache() ([]build.CacheRecord, error) { return nil, nil }
func (s *Service) Prune(ctx context.Context, all bool, f filter.Args) ([]string, int64, error) {
	return nil, 0, fault.Unsupported("")
}
