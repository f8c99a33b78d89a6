package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/build/execute"
	"tare/internal/build/graph"
	"tare/internal/build/rootfs"
	"tare/internal/build/solve"
	"tare/internal/runtime"
)

// run does RUN.
func (w *worker) run(ctx context.Context, a *area, op graph.Run, work solve.Work, log io.Writer) error {
	before, err := rootfs.Open(a.lower, "", "")
	if err != nil {
		return err
	}
	defer before.Close()
	user, err := before.User(op.User)
	if err != nil {
		return err
	}
	lower := a.lower
	if len(lower) == 0 { // an overlay wants one
		empty := filepath.Join(a.dir, "empty")
		if err := os.Mkdir(empty, 0o755); err != nil {
			return err
		}
		lower = []string{empty}
	}
	p := execute.Process{
		Dir:  filepath.Join(a.dir, "bundle"),
		Root: runtime.Overlay{Lower: lower, Upper: a.upper, Work: a.work, Volatile: true},
		Args: op.Args, Env: append(slices.Clone(op.Env), op.Proxy...), Cwd: op.Dir,
		User: execUser(user), Network: op.Network, DNS: w.req.DNS, Hosts: op.Hosts,
		Insecure: op.Insecure, ShmSize: op.ShmSize, Rlimits: op.Ulimits, Limits: limits(op.Limits),
	}
	if !slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		p.Env = append(p.Env, "HOME="+user.Home)
	}
	if err := os.Mkdir(p.Dir, 0o700); err != nil {
		return err
	}
	release, err := w.mount(ctx, a, op, work, &p)
	defer release()
	if err != nil {
		return err
	}
	points, err := execute.MountPoints(p)
	if err != nil {
		return err
	}
	left := leftovers(before, points)
	code, err := w.s.exec.Run(ctx, p, log)
	if err != nil {
		return err
	}
	if code != 0 {
		return &ExitError{Command: strings.Join(op.Args, " "), Code: code}
	}
	return left.remove(a.upper)
}

func execUser(u rootfs.User) specs.User {
	out := specs.User{UID: uint32(u.UID), GID: uint32(u.GID), AdditionalGids: []uint32{uint32(u.GID)}}
	for _, g := range u.Groups {
		if g != u.GID {
			out.AdditionalGids = append(out.AdditionalGids, uint32(g))
		}
	}
	return out
}

func limits(l graph.Limits) *specs.LinuxResources {
	if l == (graph.Limits{}) {
		return nil
	}
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: l.CPUSetCPUs, Mems: l.CPUSetMems}}
	if l.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &l.Memory}
	}
	if l.CPUShares > 0 {
		v := uint64(l.CPUShares)
		r.CPU.Shares = &v
	}
	if l.CPUQuota > 0 {
		r.CPU.Quota = &l.CPUQuota
	}
	if l.CPUPeriod > 0 {
		v := uint64(l.CPUPeriod)
		r.CPU.Period = &v
	}
	return r
}

// mount prepares the step's own mounts and inline files. release has to be called, also after an error.
func (w *worker) mount(ctx context.Context, a *area, op graph.Run, work solve.Work, p *execute.Process) (release func(), err error) {
	var ends []func()
	secrets, agents := "", 0
	release = func() {
		for _, end := range slices.Backward(ends) {
			end()
		}
	}
	if len(op.Files) > 0 {
		dir := filepath.Join(a.dir, "files")
		if err := os.Mkdir(dir, 0o755); err != nil {
			return release, err
		}
		for _, f := range op.Files {
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Name)), []byte(f.Data), 0o755); err != nil {
				return release, err
			}
		}
		p.Mounts = append(p.Mounts, execute.Bind(dir, graph.FilesDir, true))
	}
	for i, m := range op.Mounts {
		switch m.Type {
		case "tmpfs":
			p.Mounts = append(p.Mounts, execute.Tmpfs(m.Target, m.Size))
		case "bind":
			mount, err := w.bind(ctx, a, m, work, filepath.Join(a.dir, fmt.Sprint("mount", i)))
			if err != nil {
				return release, err
			}
			p.Mounts = append(p.Mounts, mount)
		case "secret":
			err := w.secret(ctx, m, func() (string, error) {
				if secrets != "" {
					return secrets, nil
				}
				dir, end, err := w.s.secrets.step()
				if err == nil {
					secrets = dir
					ends = append(ends, end)
					p.Dir = filepath.Join(dir, "bundle")
					err = os.Mkdir(p.Dir, 0o700)
				}
				return dir, err
			}, p)
			if err != nil {
				return release, err
			}
		case "ssh":
			end, err := w.agent(ctx, m, a.dir, agents, p)
			if err != nil {
				return release, err
			}
			agents++
			ends = append(ends, end)
		case "cache":
			host, end, err := w.cacheMount(ctx, m, work)
			if err != nil {
				return release, err
			}
			ends = append(ends, end)
			p.Mounts = append(p.Mounts, execute.Bind(host, m.Target, m.ReadOnly))
		}
	}
	return release, nil
}

// leftover is a place that a mount needs: the path without symlinks, and which part of it was there before.
type leftover struct {
	path string
	had  string // the deepest folder that was there
	root *rootfs.Root
}

type leftoverList []leftover

// leftovers notes which mount points are not in the image; those inside another mount leave nothing.
func leftovers(before *rootfs.Root, points []string) leftoverList {
	var out leftoverList
	for _, p := range points {
		inside := slices.ContainsFunc(points, func(q string) bool { return q != p && strings.HasPrefix(p, q+"/") })
		if inside || p == "/" || before.Exists(p) {
			continue
		}
		real := before.Real(p)
		had := path.Dir(real)
		for had != "/" && !before.Exists(had) {
			had = path.Dir(had)
		}
		out = append(out, leftover{path: real, had: had, root: before})
	}
	return out
}

// remove takes away from the upper directory what only mounts needed: empty files and folders at
// their places, folders on the way to them, and folders that were copied up for no other reason.
func (list leftoverList) remove(upper string) error {
	up, err := rootfs.Open(nil, upper, "")
	if err != nil {
		return err
	}
	defer up.Close()
	for _, l := range list {
		if !up.RemoveEmpty(l.path) {
			continue
		}
		dir := path.Dir(l.path)
		for ; dir != l.had && up.RemoveEmpty(dir); dir = path.Dir(dir) {
		}
		for ; dir == l.had && dir != "/"; dir = path.Dir(dir) {
			if !up.SameAttributes(l.root, dir) || !up.RemoveEmpty(dir) {
				break
			}
			l.had = path.Dir(dir)
		}
	}
	return nil
}
