// Package graph turns a Dockerfile into steps with inputs: pure data that a solver runs without
// knowing a word of Dockerfile. It reads no file, no clock and no host; what it must know of a base image it
// asks a Resolver.
//
//	file    the parsed Dockerfile: stages of instructions
//	stage   FROM … up to the next FROM; only those that the target needs are built
//	line    one instruction as the user wrote it: what is printed and what history says of it
//	step    work that changes files: Base, Run, Copy or MakeDir. ENV and the like are no steps,
//	        they only change the stage's config
//
//	f, err := graph.Parse("Dockerfile", text)
//	g, err := f.Graph(graph.Options{Target: "web"}, resolver)
//	fmt.Print(g)  // the golden form
package graph

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Config is an image's config blob.
type Config = dockerspec.DockerOCIImage

// None is the parent of a step that starts from an empty root.
const None = -1

// Graph is what to build. Steps come before those that use them.
type Graph struct {
	Steps      []Step
	Stages     []Stage // the needed ones, in the file's order
	Target     int     // index into Stages
	UnusedArgs []string
	Warnings   []Warning
	file       *File
}

// Located adds to an error of a step where it is in the Dockerfile.
func (g *Graph) Located(err error, step int) error {
	if step == None || g.Steps[step].Lines[0] == 0 {
		return err
	}
	l := g.Steps[step].Lines
	return &located{err, fmt.Sprintf("%s:%d\n%s", g.file.name, l[0], strings.TrimSuffix(Excerpt(g.file.lines, l[0], l[1]), "\n"))}
}

type located struct {
	err error
	at  string
}

func (l *located) Error() string { return l.err.Error() + "\n" + l.at }
func (l *located) Unwrap() error { return l.err }

// Step is one vertex. Its result is a list of layers: the parent's and at most one more.
type Step struct {
	Lines  [2]int // of the instruction in the Dockerfile, first and last; 0: none
	Epoch  int64  // Unix seconds: the time of what the step makes
	Parent int    // index into Graph.Steps, or None
	Inputs []int  // further steps whose files it reads; Source.Input counts in this list
	About  string // one line for people
	Op     Op
}

// Op is what a step does: Base, Run, Copy or MakeDir. Its JSON form is part of the step's key, so what must not be is tagged "-".
type Op interface{ kind() string }

// Kind names the op's type, as keys and traces spell it.
func Kind(o Op) string { return o.kind() }

// Base is an existing image's root.
type Base struct {
	Image  digest.Digest   `json:"-"`
	Layers []digest.Digest // diffIDs, bottom first
}

// Run executes a program in the parent's root.
type Run struct {
	Args     []string
	Env      []string
	Proxy    []string `json:"-"` // environment too, but no part of the key
	Dir      string
	User     string              `json:",omitempty"`
	Network  string              `json:",omitempty"` // "", "host", "none" or a network's name
	Insecure bool                `json:",omitempty"` // without the sandbox
	Mounts   []Mount             `json:",omitempty"`
	Files    []Inline            `json:",omitempty"` // made in FilesDir, read-only, mode 0755
	Limits   Limits              `json:"-"`          // of the request, with no effect on files
	Hosts    []string            `json:",omitempty"`
	ShmSize  int64               `json:",omitempty"`
	Ulimits  []specs.POSIXRlimit `json:",omitempty"`
}

// FilesDir is where a Run sees its Files.
const FilesDir = "/dev/pipes"

// Limits are cgroup limits in Docker's units: bytes, shares, microseconds.
type Limits struct {
	Memory, MemorySwap             int64
	CPUShares, CPUPeriod, CPUQuota int64
	CPUSetCPUs, CPUSetMems         string
	CgroupParent                   string
}

// Mount is one `RUN --mount`.
type Mount struct {
	Type     string // "bind", "cache", "tmpfs", "secret" or "ssh"
	From     Source
	Path     string `json:",omitempty"` // inside From; of a cache, what it begins with: "" nothing
	Target   string `json:",omitempty"`
	ID       string `json:",omitempty"` // of a secret or an agent
	Env      string `json:",omitempty"` // the variable that gets a secret; Target may be "" then
	Required bool   `json:",omitempty"`
	ReadOnly bool   `json:",omitempty"`
	Size     int64  `json:",omitempty"` // tmpfs, bytes
	CacheID  string `json:",omitempty"`
	Sharing  string `json:",omitempty"` // "shared", "private" or "locked"
	Mode     uint32 `json:",omitempty"` // of a fresh cache folder, a secret or a socket
	UID, GID uint32 `json:",omitempty"`
}

// Source says where files come from: a build context, or an input step.
type Source struct {
	Context bool   `json:",omitempty"`
	Name    string `json:",omitempty"` // of the context; "" is the build's own
	Input   int    `json:",omitempty"` // index into Step.Inputs, if not Context
}

// Copy writes files into the parent's root.
type Copy struct {
	From    Source
	Paths   []string      `json:",omitempty"` // absolute in From; wildcards in path.Match's form
	URLs    []string      `json:",omitempty"` // also of git repositories
	KeepGit bool          `json:",omitempty"` // .git of a repository comes along
	Inline  []Inline      `json:",omitempty"`
	Dest    string        // absolute; a closing slash says "a folder"
	Owner   string        `json:",omitempty"` // user[:group]; "" is 0:0 from a context, the source's owner from a step
	Mode    string        `json:",omitempty"` // octal or symbolic; "" keeps the source's
	Extract bool          `json:",omitempty"` // local tar files are unpacked
	Unpack  bool          `json:",omitempty"` // downloaded ones too
	Link    bool          `json:",omitempty"` // into an empty root, so that it does not depend on the parent
	Parents bool          `json:",omitempty"`
	Exclude []string      `json:",omitempty"`
	Sum     digest.Digest `json:",omitempty"` // of the only URL, if given
	Commit  string        `json:",omitempty"` // of the only repository, if given
	// Word is the instruction in error messages.
	Word string `json:"-"`
}

// Alone tells whether the step makes the same layer whatever is below it: COPY --link, unless the owner's name has to be looked up.
func (c Copy) Alone() bool {
	return c.Link && strings.Trim(c.Owner, "0123456789:") == ""
}

// Inline is a file whose content stands in the Dockerfile.
type Inline struct{ Name, Data string }

// MakeDir makes sure that a folder exists.
type MakeDir struct {
	Path  string
	Owner string // of the folders made; "" is 0:0
}

func (Base) kind() string    { return "base" }
func (Run) kind() string     { return "run" }
func (Copy) kind() string    { return "copy" }
func (MakeDir) kind() string { return "mkdir" }

// Stage is a finished stage.
type Stage struct {
	Epoch  int64  // Unix seconds: when the image was made, as far as it says
	Name   string // "" without AS
	Index  int    // in the file
	Last   int    // its last step, or None for an empty root
	Parent int    // index into Graph.Stages of the stage it is FROM, or None
	Lines  []Line
	// Config is the image's config, with the base image's History and RootFS.
	Config Config
}

// Line is one instruction.
type Line struct {
	Text      string // as written
	CreatedBy string // for the image's history; "" adds nothing to it
	Step      int    // what it does to files, or None
	Shows     bool   // false for FROM: its step is the base
}
