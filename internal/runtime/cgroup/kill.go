package cgroup

import (
	"errors"
	"os"
	"path"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// killLimit is how long Kill waits for the killed to be gone. A process in an uninterruptible sleep can't be killed.
const killLimit = 10 * time.Second

// Kill ends all processes of the group and below, frozen ones too, and returns when none is left. A group that is not there has none.
func (g *Group) Kill() error {
	deadline := time.Now().Add(killLimit)
	if g.host.V2 {
		_ = write(g.v2(), "cgroup.kill", "1") // all at once, whatever forks; since Linux 5.14
	}
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		pids, err := g.Pids()
		if err != nil || len(pids) == 0 {
			if errdefs.IsNotFound(err) { // systemd removes what is empty, one hierarchy after the other
				return nil
			}
			return err
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if g.Frozen() {
			_ = g.Thaw()
		}
		if time.Now().After(deadline) {
			return fault.Unavailable("cgroup %s still has the processes %v", g.path, pids)
		}
		time.Sleep(pause)
	}
}

// Children are the names of the groups right below this one, in any hierarchy, sorted.
func (g *place) Children() ([]string, error) {
	var names []string
	for _, d := range g.dirs() {
		entries, err := os.ReadDir(d)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, path.Base(e.Name()))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// RemoveEmpty deletes the group where it has neither processes nor groups below. It waits for nothing.
func (g *Group) RemoveEmpty() {
	for _, d := range g.dirs() {
		_ = unix.Rmdir(d)
	}
}
