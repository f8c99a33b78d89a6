// Package runtime holds the words that the runtime's parts, and the engine and
// builder above it, share.
//
// A container is a process in namespaces of its own, described by an OCI bundle
// (a folder with config.json). It is started in two steps, so that the network
// box can give addresses in between and nobody needs a hook:
//
//	create   namespaces, mounts, cgroup are made; the process waits just before exec
//	start    the process execs; from here on it is the container's
//
// The supervisor (one `tare-run supervise` process per engine) is the parent of
// every container and every exec. It owns their stdio, their terminals, their
// log files and their exit records; the engine may come and go. The packages:
//
//	plan       OCI spec → list of steps (pure)
//	launch     executes a plan in a new process
//	lower      plan → program of system calls (pure but for what a child inherits)
//	calls      programs of system calls, and the interpreter that runs them
//	seccomp    OCI seccomp profile → BPF (pure)
//	cgroup     cgroup v1 and v2: limits, statistics, freezing, processes
//	defaults   Docker's default OCI spec (pure)
//	wire       the messages between engine and supervisor
//	supervise  the supervisor
//	client     the engine's end of it
//	oci        the OCI runtime command line
package runtime

import (
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Ref names a process under the supervisor: a container's init (Exec is "") or one exec in it.
type Ref struct {
	Container string `json:"container"`
	Exec      string `json:"exec,omitempty"`
}

// Overlay is the root file system, mounted inside the container's own mount
// namespace, so that nothing of it is ever visible, or left, on the host.
type Overlay struct {
	Lower    []string `json:"lower"` // layer folders, topmost first; never empty
	Upper    string   `json:"upper"` // "" makes the root read-only without an upper layer
	Work     string   `json:"work"`
	Volatile bool     `json:"volatile,omitempty"` // skip syncing: for --rm containers and build steps
}

// Log says where output goes besides attached clients.
type Log struct {
	Driver   string `json:"driver"`             // "json-file", "local" (same format) or "none"
	Path     string `json:"path,omitempty"`     // the newest file; rotated ones are Path.1, Path.2, …
	MaxSize  int64  `json:"maxSize,omitempty"`  // bytes before rotation; ≤ 0: never
	MaxFiles int    `json:"maxFiles,omitempty"` // including the newest; ≥ 1
	Compress bool   `json:"compress,omitempty"` // rotated files become Path.1.gz, Path.2.gz, …
	// NonBlocking lets no container wait for its log: MaxBuffer bytes of text are gathered, what comes then is dropped.
	NonBlocking bool  `json:"nonBlocking,omitempty"`
	MaxBuffer   int64 `json:"maxBuffer,omitempty"` // ≤ 0: 1 MiB

	Attrs map[string]string `json:"attrs,omitempty"` // written with every entry
}

// Stdio says what a process reads from and writes to.
type Stdio struct {
	Terminal  bool   `json:"terminal,omitempty"`
	OpenStdin bool   `json:"openStdin,omitempty"` // keep stdin open, for attached clients; else it is /dev/null
	StdinOnce bool   `json:"stdinOnce,omitempty"` // close stdin when the first attached client's stdin ends
	Width     uint16 `json:"width,omitempty"`     // of the terminal, in characters; 0: unset
	Height    uint16 `json:"height,omitempty"`
	Log       Log    `json:"log"`
}

// Create asks for a container from the bundle's config.json.
type Create struct {
	ID     string   `json:"id"`
	Bundle string   `json:"bundle"`
	Rootfs *Overlay `json:"rootfs,omitempty"` // nil: root.path of the spec, as it is
	Stdio  Stdio    `json:"stdio"`
	// Runtime has another OCI runtime run the container; nil: our own.
	Runtime *Foreign `json:"runtime,omitempty"`
}

// Foreign is an OCI runtime's command line, such as runc's.
type Foreign struct {
	Path string   `json:"path"`           // absolute
	Args []string `json:"args,omitempty"` // before its command
}

// Exec asks for a further process in a running container.
type Exec struct {
	Ref     Ref           `json:"ref"`
	Process specs.Process `json:"process"` // user by number; seccomp and cgroup are the container's
	Stdio   Stdio         `json:"stdio"`   // Log is ignored: an exec's output goes to its clients only
}

// Status of a container, in the OCI runtime-spec's words plus "paused".
type Status string

const (
	Created Status = "created" // waits for start
	Running Status = "running"
	Paused  Status = "paused"
	Stopped Status = "stopped" // its exit record is kept until Delete
)

// Exit is the record of a process's end.
type Exit struct {
	Ref       Ref       `json:"ref"`
	Code      int       `json:"code"` // 0-255; 128+n after signal n
	OOMKilled bool      `json:"oomKilled,omitempty"`
	At        time.Time `json:"at"`
	// Reason says why the code is not known, and 255 then.
	Reason string `json:"reason,omitempty"`
	// Seq numbers the supervisor's exit records, from 1, without gaps.
	Seq uint64 `json:"seq"`
}

// State is what the supervisor knows of one container.
type State struct {
	ID        string    `json:"id"`
	Status    Status    `json:"status"`
	Pid       int       `json:"pid"` // on the host; 0 once stopped
	CreatedAt time.Time `json:"createdAt"`
	StartedAt time.Time `json:"startedAt"`
	Exit      *Exit     `json:"exit,omitempty"`
	Execs     []string  `json:"execs,omitempty"` // ids of the running ones
	Bundle    string    `json:"bundle"`
}

// Attach selects streams of a process for one client.
type Attach struct {
	Ref    Ref  `json:"ref"`
	Stdin  bool `json:"stdin,omitempty"`
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
}
