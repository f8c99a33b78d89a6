// Package build turns a Dockerfile and a context into an image.
//
//	Dockerfile ──parse──▶ stages of instructions (BuildKit's parser packages)
//	           ──graph──▶ steps with inputs, no Dockerfile words left (pure)
//	           ──solve──▶ each step cached, or run: a list of layers and a config
//	           ──export─▶ an image in the store, and its name
//
// A step's key is made of the contents below it and of what it does; COPY's also of the digest of what
// it copies. The cache (DATA_ROOT/build) maps keys to layers and survives restarts. The packages:
//
//	graph    Dockerfile → steps (pure)
//	solve    steps → layers, in parallel, each key once
//	cache    key → layer, on disk
//	source   the context, and other files to copy
//	contents what the files of contexts had in them, for the next build
//	rootfs   a stack of layers as a tree to read and write
//	copier   COPY's rules
//	execute  RUN's process
//
// On disk: build/cache/<key>.json, build/mounts/<hex> (RUN --mount=type=cache), build/contents, build/tmp (what is being made;
// emptied by Open).
package build

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/event"
	"tare/internal/base/progress"
	"tare/internal/build/cache"
	"tare/internal/build/contents"
	"tare/internal/build/execute"
	"tare/internal/build/solve"
	"tare/internal/image"
	"tare/internal/image/layer"
	"tare/internal/image/transfer"
)

// Request is POST /build's query, decoded.
type Request struct {
	Context       io.Reader // tar, maybe compressed; nil with Remote and Peer
	Peer          Peer      // has the context whose listing has this digest, in hex
	Digest        string
	Text          []byte             // of the Dockerfile, with Peer
	Origin        string             // whose builds are compared: where the Dockerfile is
	Files         bool               // send the result's files to the peer, make no image
	Check         bool               // only check the Dockerfile
	NoCacheFilter []string           // stages in which nothing is taken from the cache
	Explain       bool               // tell why steps ran
	Contexts      map[string]Context // of the peer, by name in lower case
	Allow         []string           // entitlements
	Ignore        []string           // the ignore file's patterns, with Peer
	Remote        string             // URL of a Dockerfile or tar
	Dockerfile    string             // path in the context, "Dockerfile" by default
	Tags          []string
	BuildArgs     map[string]*string
	Labels        map[string]string
	Target        string
	Platform      string
	NoCache       bool
	Pull          bool
	Network       string // "default", "host", "none" or a network's name
	ExtraHosts    []string
	ShmSize       int64
	Memory        int64
	CPUShares     int64
	CPUQuota      int64
	CPUPeriod     int64
	CPUSetCPUs    string
	Auths         map[string]registry.AuthConfig
	DNS           []netip.Addr
	Ulimits       []specs.POSIXRlimit
	Quiet         bool
	RemoveSteps   bool // accepted, always true: steps leave no containers
}

// Context is a named build context: a folder of the peer's by its listing's digest, or an image.
type Context struct{ Digest, Image string }

// Output receives the progress of a build in the classic builder's words: Stream lines
// ("Step 1/3 : FROM …", output of RUN, " ---> Using cache") and the pulls of base images. Its methods
// are called by one goroutine at a time.
type Output interface {
	Stream(text string)
	Status(id, action string, current, total int64)
}

// ExitError is the end of a RUN whose program failed.
type ExitError struct {
	Command string // as history shows it
	Code    int
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("The command '%s' returned a non-zero code: %d", e.Command, e.Code)
}

// ExitCode is what the door sends as errorDetail.code.
func (e *ExitError) ExitCode() int { return e.Code }

// Images is what building needs of the image store.
type Images interface {
	Get(ref string) (*image.Image, error)
	List() []*image.Image
	LowerOf(diffIDs []digest.Digest) ([]string, error)
	Hold(holder string, ids ...digest.Digest)
	Release(holder string)
	CommitAt(ctx context.Context, upper string, t layer.Times) (layer.Layer, error)
	Put(config *image.Config, layers []layer.Layer, names ...reference.NamedTagged) (*image.Image, error)
	Discard(ids ...digest.Digest) error
	Arrive() (done func())
	Disk() (image.Disk, error)
}

// Layers finds layers' records.
type Layers interface {
	Get(diffID digest.Digest) (layer.Layer, error)
}

// Puller fetches base images.
type Puller interface {
	Pull(ctx context.Context, req transfer.PullRequest, p progress.Sink) (*image.Image, error)
}

// executor runs RUN steps.
type executor interface {
	Run(ctx context.Context, p execute.Process, out io.Writer) (code int, err error)
	Recover(ctx context.Context) error
}

// Config is what a Service is made of.
type Config struct {
	DataRoot     string
	CgroupParent string // of RUN's processes, "/tare/<instance>"
	Images       Images
	Layers       Layers // the image store's
	Puller       Puller
	Runtime      execute.Runtime
	Networks     execute.Networks
	Bus          *event.Bus
	Host         ocispec.Platform // zero: this program's
	CacheLimit   int64            // bytes that the cache may take; 0: a tenth of the disk
	ShmSize      int64            // of RUN steps that don't say, in bytes; 0: 64 MiB
}

// Service builds. Safe for concurrent use; one step asked for by two builds runs once.
type Service struct {
	cfg      Config
	root     string // DATA_ROOT/build
	exec     executor
	cache    *cache.Cache
	solve    *solve.Solver
	contexts *contexts
	secrets  secrets
	stories  stories
	mounts   *mounts
	running  *running
	pruner   *pruner
	after    sync.WaitGroup // what builds leave to be done when they have ended
}

// Open makes the service: it ends the steps and removes the files that a killed engine left, and takes the cache's holds on
// layers. It must come before the image store's first Sweep.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	return open(ctx, cfg, &execute.Executor{Runtime: cfg.Runtime, Networks: cfg.Networks, CgroupParent: cfg.CgroupParent})
}

func open(ctx context.Context, cfg Config, exec executor) (*Service, error) {
	if cfg.Host.OS == "" {
		cfg.Host = hostPlatform()
	}
	root := filepath.Join(cfg.DataRoot, "build")
	s := &Service{cfg: cfg, root: root, exec: exec, secrets: secrets{root}, stories: stories{filepath.Join(root, "explain")},
		mounts:  &mounts{dir: filepath.Join(root, "mounts"), locks: map[string]chan struct{}{}},
		running: &running{builds: map[chan struct{}]context.Context{}}}
	if err := exec.Recover(ctx); err != nil {
		return nil, fmt.Errorf("cannot end the build steps of the last run: %w", err)
	}
	if err := os.RemoveAll(s.tmp()); err != nil {
		return nil, err
	}
	if err := s.secrets.sweep(); err != nil {
		return nil, err
	}
	for _, d := range []string{s.tmp(), s.mounts.dir, s.stories.dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	s.cache, err = cache.Open(filepath.Join(root, "cache"), cfg.Images, func(d digest.Digest) bool {
		_, err := cfg.Layers.Get(d)
		return err == nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the build cache: %w", err)
	}
	s.contexts = &contexts{tmp: s.tmp()}
	if s.contexts.contents, err = contents.Open(filepath.Join(root, "contents"), maxContents); err != nil {
		return nil, fmt.Errorf("cannot read the contents of build contexts: %w", err)
	}
	s.pruner = &pruner{root: root, limit: cfg.CacheLimit, images: cfg.Images, bus: cfg.Bus, cache: s.cache, contexts: s.contexts,
		mounts: s.mounts, stories: s.stories, running: s.running}
	s.solve = solve.New(s.cache)
	return s, nil
}

// Close waits until what builds left to be done is done and statistics of the cache are written. No build may run.
func (s *Service) Close() error {
	s.after.Wait()
	s.cache.Close()
	s.contexts.contents.Close()
	return nil
}

// maxContents is how much is kept of the files that build contexts had, in bytes.
const maxContents = 10 << 30

func (s *Service) tmp() string { return filepath.Join(s.root, "tmp") }
