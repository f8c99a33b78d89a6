package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Create makes the group in every hierarchy and sets its limits. A group that exists already is
// taken over if it has no processes. After an error nothing of it is left.
func (g *Group) Create(r *specs.LinuxResources) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, d := range made {
				_ = unix.Rmdir(d)
			}
		}
	}()
	for _, m := range g.host.mounts() {
		dir := m + g.path
		switch err := g.makeDir(m); {
		case err == nil:
			made = append(made, dir)
		case errors.Is(err, fs.ErrExist):
			if b, _ := os.ReadFile(path.Join(dir, "cgroup.procs")); len(b) > 0 {
				return fault.Conflict("cgroup %s has processes already", g.path)
			}
			made = append(made, dir)
		default:
			return fault.Internal("cannot make cgroup %s: %w", dir, err)
		}
	}
	if cs := g.dir("cpuset"); cs != "" && !g.host.V2 {
		if err := inheritCpuset(g.host.Controllers["cpuset"], g.path); err != nil {
			return fault.Internal("cannot initialise the cpuset of cgroup %s: %w", g.path, err)
		}
	}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	return g.apply(r, true)
}

// makeDir makes the group's directory and its parents below a mount point. Under v2 controllers
// are enabled on the way down.
func (g *Group) makeDir(mount string) error {
	if err := os.Mkdir(mount+g.path, 0o755); err == nil || errors.Is(err, fs.ErrExist) {
		if err == nil && g.host.V2 {
			return enable(mount, g.path)
		}
		return err
	}
	if err := os.MkdirAll(mount+path.Dir(g.path), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(mount+g.path, 0o755)
	if err == nil && g.host.V2 {
		return enable(mount, g.path)
	}
	return err
}

// enable turns on, in every parent, the controllers that its own parent offers. One
// that can't be (another group of the parent has processes) stays off; limits that need it then fail.
func enable(mount, group string) error {
	at := mount
	for _, part := range strings.Split(strings.Trim(group, "/"), "/") {
		b, err := os.ReadFile(path.Join(at, "cgroup.controllers"))
		if err != nil {
			return err
		}
		on := strings.Fields(readString(path.Join(at, "cgroup.subtree_control")))
		for _, c := range strings.Fields(string(b)) {
			have := false
			for _, o := range on {
				have = have || o == c
			}
			if !have {
				_ = write(at, "cgroup.subtree_control", "+"+c)
			}
		}
		at = path.Join(at, part)
	}
	return nil
}

// inheritCpuset gives each directory on the way its parent's CPUs and memory nodes: a v1
// cpuset starts with none, and takes no process then.
func inheritCpuset(mount, group string) error {
	if made, err := inheritFrom(mount+path.Dir(group), mount+group); made || err != nil {
		return err
	}
	at := mount
	for _, part := range strings.Split(strings.Trim(group, "/"), "/") {
		child := path.Join(at, part)
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if readString(path.Join(child, file)) != "" {
				continue
			}
			if err := write(child, file, readString(path.Join(at, file))); err != nil {
				return err
			}
		}
		at = child
	}
	return nil
}

// inheritFrom gives a new cpuset its parent's; made is false if that has none itself.
func inheritFrom(parent, child string) (made bool, err error) {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value := readString(path.Join(parent, file))
		if value == "" {
			return false, nil
		}
		if readString(path.Join(child, file)) != "" {
			continue // a group that was there before
		}
		if err := write(child, file, value); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (g *Group) exists() bool {
	for _, d := range g.dirs() {
		if _, err := os.Stat(d); err == nil {
			return true
		}
	}
	return false
}

func write(dir, file, value string) error {
	f, err := os.OpenFile(path.Join(dir, file), os.O_WRONLY|unix.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
