package oci

import (
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/runtime"
	"tare/internal/runtime/cgroup"
	"tare/internal/runtime/plan"
)

// told is what state and list tell of a container, with runc's keys.
type told struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	Pid         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

// record is a container's state.json.
type record struct {
	told
	StartTime uint64       `json:"initStartTime"` // of init, in clock ticks after boot
	Cgroup    string       `json:"cgroup"`
	Options   plan.Options `json:"options"` // that its plan was compiled with
}

// state is the container's, as hooks and others see it.
func (r *record) state(status specs.ContainerState) specs.State {
	return specs.State{Version: r.Version, ID: r.ID, Status: status, Pid: r.Pid, Bundle: r.Bundle, Annotations: r.Annotations}
}

const (
	stateFile  = "state.json"
	specFile   = "config.json"
	socketFile = "start.sock"
)

// validID is ^[\w+.-]+$ and no name of a folder; a regular expression would be made at every start of a container.
func validID(id string) bool {
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("_+.-", c) >= 0:
		default:
			return false
		}
	}
	return id != "" && id != "." && id != ".."
}

func (g *global) dir(id string) (string, error) {
	if !validID(id) {
		return "", fault.Invalid("invalid container ID format: %q", id)
	}
	return filepath.Join(g.root, id), nil
}

// load reads a container's state and finds out its status.
func (g *global) load(id string) (*record, string, error) {
	dir, err := g.dir(id)
	if err != nil {
		return nil, "", err
	}
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fault.NotFound("container %s does not exist", id)
	}
	if err != nil {
		return nil, "", fault.Internal("cannot read the state of container %s: %w", id, err)
	}
	r := new(record)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, "", fault.Internal("cannot read the state of container %s: %w", id, err)
	}
	r.Status = r.status(dir)
	if r.Status == specs.StateStopped {
		r.Pid = 0
	}
	return r, dir, nil
}

func (r *record) status(dir string) specs.ContainerState {
	if !alive(r.Pid, r.StartTime) {
		return specs.StateStopped
	}
	if _, err := os.Lstat(filepath.Join(dir, socketFile)); err == nil {
		return specs.StateCreated
	}
	if group, err := cgroup.Open(r.Cgroup); err == nil && group.Frozen() {
		return specs.ContainerState(runtime.Paused)
	}
	return specs.StateRunning
}

func (r *record) save(dir string) error {
	return files.WriteJSON(filepath.Join(dir, stateFile), r, files.Fast)
}

func (r *record) spec(dir string) (*specs.Spec, error) {
	s := new(specs.Spec)
	if err := files.ReadJSON(filepath.Join(dir, specFile), s); err != nil {
		return nil, fault.Internal("cannot read the spec of container %s: %w", r.ID, err)
	}
	return s, nil
}

// alive tells whether that very process, not a zombie, is still there.
func alive(pid int, start uint64) bool {
	if pid <= 0 {
		return false
	}
	state, began, err := procStat(pid)
	return err == nil && state != 'Z' && state != 'X' && began == start
}

// procStat reads the state and the start time from /proc/PID/stat (proc_pid_stat(5)); the
// command's name, field 2, may contain anything, so fields are counted after its closing parenthesis.
func procStat(pid int) (state byte, start uint64, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return 0, 0, fault.Internal("/proc/%d/stat is cut short", pid)
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	return f[0][0], start, err
}

func state(g *global, fs *flag.FlagSet, args []string) (int, error) {
	if err := parse(fs, args, 1, 1); err != nil {
		return 1, err
	}
	r, _, err := g.load(fs.Arg(0))
	if err != nil {
		return 1, err
	}
	return 0, printJSON(g.stdout, r.told)
}

// signalInit sends a signal to the container's init, if it is still the same process.
func (r *record) signalInit(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(r.Pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !alive(r.Pid, r.StartTime) {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}
