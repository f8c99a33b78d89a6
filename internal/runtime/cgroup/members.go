package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// member is the directory whose members are the group's.
func (g *place) member() string {
	if g.host.V2 {
		return g.v2()
	}
	for _, c := range []string{"pids", "memory", "devices", "freezer", "cpu"} {
		if m, ok := g.host.Controllers[c]; ok {
			return m + g.path
		}
	}
	return g.dirs()[0]
}

// Pids lists the processes in the group and below, host pids.
func (g *place) Pids() ([]int, error) {
	var pids []int
	err := filepath.WalkDir(g.member(), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && p != g.member() {
				return nil
			}
			return err
		}
		if !d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path.Join(p, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil {
			return err
		}
		for f := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(f); err == nil && n != 0 {
				pids = append(pids, n)
			}
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.NotFound("cgroup %s does not exist", g.path)
	}
	return pids, err
}

// freezeLimit is how long Freeze tries. A process in an uninterruptible sleep can't be frozen.
const freezeLimit = 5 * time.Second

// Freeze stops all processes of the group and returns once they are stopped.
func (g *place) Freeze() error { return g.freezer(true) }

// Thaw lets them go on.
func (g *place) Thaw() error { return g.freezer(false) }

func (g *place) freezer(freeze bool) error {
	file, value, reached := "freezer.state", "THAWED", g.frozenV1
	if freeze {
		value = "FROZEN"
	}
	dir, v2 := g.on("freezer")
	if !v2 && dir == "" && g.v2() != "" { // a core file of v2, it needs no controller
		dir, v2 = g.v2(), true
	}
	if v2 {
		file, value, reached = "cgroup.freeze", "0", g.frozenV2
		if freeze {
			value = "1"
		}
	}
	if dir == "" {
		return fault.Unsupported("this machine has no freezer cgroup controller: containers can't be paused")
	}
	deadline := time.Now().Add(freezeLimit)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		// v1 must be told again: a fork may slip through while it is freezing.
		if err := write(dir, file, value); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return fault.NotFound("cgroup %s does not exist", g.path)
			}
			return fault.Internal("cannot write %s to %s/%s: %w", value, dir, file, err)
		}
		if reached() == freeze {
			return nil
		}
		if time.Now().After(deadline) {
			if freeze {
				_ = g.Thaw()
			}
			return fault.Unavailable("cgroup %s did not change to frozen=%t within %s", g.path, freeze, freezeLimit)
		}
		time.Sleep(pause)
	}
}

func (g *place) frozenV1() bool {
	return readString(path.Join(g.dir("freezer"), "freezer.state")) == "FROZEN"
}

func (g *place) frozenV2() bool {
	return readKeys(path.Join(g.v2(), "cgroup.events"))["frozen"] == 1
}

// Frozen tells whether the group is frozen now.
func (g *place) Frozen() bool {
	if dir, v2 := g.on("freezer"); dir != "" && !v2 {
		return g.frozenV1()
	}
	return g.v2() != "" && g.frozenV2()
}

// removeLimit is how long Remove waits for killed processes to be gone from the group.
const removeLimit = 2 * time.Second

// Remove deletes the group and those that the container made below it; NotFound
// is no error. It does not kill: Conflict if there are processes left after two seconds. Parents of the
// group that have become empty stay.
func (g *Group) Remove() error {
	g.dropUnit()
	deadline := time.Now().Add(removeLimit)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		busy := ""
		for _, d := range g.dirs() {
			switch err := removeTree(d); {
			case err == nil || errors.Is(err, fs.ErrNotExist):
			case errors.Is(err, unix.EBUSY):
				busy = d
			default:
				return fault.Internal("cannot remove cgroup %s: %w", d, err)
			}
		}
		if busy == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fault.Conflict("cgroup %s still has processes", busy)
		}
		time.Sleep(pause)
	}
}

func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	entries, readErr := os.ReadDir(dir)
	if readErr != nil {
		return readErr
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(path.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	err = unix.Rmdir(dir)
	if err == unix.ENOENT {
		return nil
	}
	return err
}
