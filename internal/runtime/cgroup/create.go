package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Create makes the group in every hierarchy and sets its limits. A group that exists already is
// taken over if it has no processes. After an error nothing of it is left. Settle must follow, once a process is in it.
func (g *Group) Create(r *specs.LinuxResources) (err error) {
	if r == nil {
		r = &specs.LinuxResources{}
	}
	if err := g.refuse(r); err != nil {
		return err
	}
	var made []string
	defer func() {
		if err != nil {
			g.dropUnit()
			for _, d := range made {
				_ = unix.Rmdir(d)
			}
		}
	}()
	for _, d := range g.dirs() {
		if b, _ := os.ReadFile(path.Join(d, "cgroup.procs")); len(b) > 0 {
			return fault.Conflict("cgroup %s has processes already", g.path)
		}
	}
	if g.unit != nil {
		if err := g.startUnit(r); err != nil {
			return err
		}
	}
	for _, m := range g.host.mounts() {
		dir := m + g.path
		if err := g.makeDir(m); err != nil && !errors.Is(err, fs.ErrExist) {
			return fault.Internal("cannot make cgroup %s: %w", dir, err)
		}
		made = append(made, dir)
	}
	if v2 := g.v2(); v2 != "" {
		if kind := readString(path.Join(v2, "cgroup.type")); kind == "domain invalid" {
			return fault.Conflict("cgroup %s cannot have processes: a parent of it is threaded", g.path)
		}
	}
	if cs, ok := g.host.Controllers["cpuset"]; ok {
		if err := inheritCpuset(cs, g.path); err != nil {
			return fault.Internal("cannot initialise the cpuset of cgroup %s: %w", g.path, err)
		}
	}
	return g.apply(r, true)
}

// Settle ends the preparations for a new group, once its first process is in it: until then another
// holds it for systemd, and a limit of no processes at all waits. Without either it does nothing.
func (g *Group) Settle() error {
	if h := g.holder.Swap(nil); h != nil {
		h.release()
	}
	if limit := g.late.Swap(nil); limit != nil {
		w := writer{g: g}
		w.put("pids", "pids.max", *limit)
		return w.err
	}
	return nil
}

// Delegate gives a v2 group to the user that the container runs as, as far as the kernel lists what may be given:
// for containers with a cgroup namespace of their own that mount their cgroup writable
// (config-linux.md, "Cgroup ownership"). For others, and under v1, where that would not be safe, nothing happens.
func (g *Group) Delegate(spec *specs.Spec) error {
	uid, ok := ownerOf(spec)
	if !g.host.V2 || !ok || uid == 0 {
		return nil
	}
	dir := g.v2()
	if err := os.Chown(dir, uid, -1); err != nil {
		return fault.Internal("cannot give cgroup %s to user %d: %w", g.path, uid, err)
	}
	list := []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"}
	if b, err := os.ReadFile("/sys/kernel/cgroup/delegate"); err == nil {
		list = strings.Fields(string(b))
	}
	for _, file := range list {
		if err := os.Chown(path.Join(dir, file), uid, -1); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.Internal("cannot give cgroup %s to user %d: %w", g.path, uid, err)
		}
	}
	return nil
}

// makeDir makes the group's directory and its parents below a mount point. In a v2 tree controllers
// are enabled on the way down.
func (g *place) makeDir(mount string) error {
	err := os.Mkdir(mount+g.path, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(mount+path.Dir(g.path), 0o755); err != nil {
			return err
		}
		err = os.Mkdir(mount+g.path, 0o755)
	}
	if (err == nil || errors.Is(err, fs.ErrExist)) && (g.host.V2 || mount == g.host.Unified && len(g.host.Offers) > 0) {
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

func (g *place) exists() bool {
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

// ownerOf is the host's id of the user that a container's cgroup should belong to, if it should.
func ownerOf(spec *specs.Spec) (uid int, ok bool) {
	if spec.Linux == nil || spec.Process == nil || !slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.CgroupNamespace && n.Path == ""
	}) {
		return 0, false
	}
	if !slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool {
		return m.Source == "cgroup" && path.Clean(m.Destination) == "/sys/fs/cgroup" && !slices.Contains(m.Options, "ro")
	}) {
		return 0, false
	}
	user := spec.Process.User.UID
	if len(spec.Linux.UIDMappings) == 0 {
		return int(user), true
	}
	for _, m := range spec.Linux.UIDMappings {
		if user >= m.ContainerID && user-m.ContainerID < m.Size {
			return int(m.HostID + user - m.ContainerID), true
		}
	}
	return 0, false
}
