package container

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/engine/rootfs"
	"tare/internal/engine/spec"
	"tare/internal/runtime/defaults"
)

// probeHost learns what spec building wants to know of the machine.
func probeHost() spec.Host {
	h := spec.Host{CPUs: runtime.NumCPU(), Masked: defaults.Throttles(os.DirFS("/sys"))}
	if list, err := os.ReadFile("/sys/devices/system/cpu/online"); err == nil {
		h.OnlineCPUs = strings.TrimSpace(string(list))
	}
	if list, err := os.ReadFile("/sys/devices/system/node/online"); err == nil {
		h.OnlineNodes = strings.TrimSpace(string(list))
	}
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
			if hex, ok := strings.CutPrefix(lines.Text(), "CapBnd:"); ok {
				if bits, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64); err == nil {
					h.Capabilities = spec.CapabilityNames(bits)
				}
			}
		}
	}
	if on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil {
		h.AppArmor = strings.HasPrefix(string(on), "Y")
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"); err == nil {
		h.SwapLimit = true
	} else if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		h.SwapLimit = true
	}
	return h
}

// buildSpec gathers what the pure part wants: user, namespaces of other containers, devices.
func (l *launcher) buildSpec(rec record, lower []string) (*specs.Spec, error) {
	h, dir := rec.HostConfig, l.dir(rec.ID)
	config := *rec.Config
	config.Hostname = rec.hostname()
	linked, err := linkVariables(rec, l.index.links(h))
	if err != nil {
		return nil, err
	}
	config.Env = append(linked, config.Env...) // what the image or the user sets wins
	in := spec.Input{
		ID: rec.ID, Config: &config, HostConfig: h, Host: l.host,
		CgroupParent: l.cgroupParent(), Ulimits: l.cfg.Ulimits, Init: l.cfg.InitProgram,
	}
	layers := rootfs.Layers{Lower: lower, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	u, err := rootfs.LookUp(func(name string) ([]byte, error) { return rootfs.ReadFile(layers, name) }, rec.Config.User, h.GroupAdd)
	if err != nil {
		return nil, err
	}
	in.User = spec.User{UID: u.UID, GID: u.GID, Groups: u.Groups, Home: u.Home}
	for _, m := range rec.Mounts {
		if err := checkPropagation(m.Spec); err != nil {
			return nil, err
		}
		in.Mounts = append(in.Mounts, m.Spec)
	}
	files := dir
	if h.NetworkMode.IsContainer() {
		donor, pid, err := l.donor("network", h.NetworkMode.ConnectedContainer())
		if err != nil {
			return nil, err
		}
		in.Join.Network, files = namespace(pid, "net"), l.dir(donor.ID)
		if rec.Config.Hostname == "" && !h.UTSMode.IsHost() {
			config.Hostname, config.Domainname = donor.hostname(), donor.Config.Domainname
		}
	}
	in.Files = spec.Files{Hosts: filepath.Join(files, "hosts"), Hostname: filepath.Join(files, "hostname"), ResolvConf: filepath.Join(files, "resolv.conf")}
	if h.PidMode.IsContainer() {
		_, pid, err := l.donor("PID", h.PidMode.Container())
		if err != nil {
			return nil, err
		}
		in.Join.PID = namespace(pid, "pid")
	}
	switch {
	case h.IpcMode.IsContainer():
		donor, pid, err := l.donor("IPC", h.IpcMode.Container())
		if err != nil {
			return nil, err
		}
		if !donor.HostConfig.IpcMode.IsShareable() {
			return nil, fault.Invalid("cannot join IPC of a non-shareable container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", donor.Name)
		}
		in.Join.IPC, in.Join.Shm = namespace(pid, "ipc"), filepath.Join(l.dir(donor.ID), "shm")
	case h.IpcMode.IsShareable():
		if in.Join.Shm, err = mountShm(filepath.Join(dir, "shm"), h.ShmSize); err != nil {
			return nil, err
		}
	}
	for _, d := range h.Devices {
		found, err := devices(d)
		if err != nil {
			return nil, err
		}
		in.Devices = append(in.Devices, found...)
	}
	if h.Privileged {
		in.Host.Devices = hostDevices()
	}
	if in.Block, err = blockNumbers(h.Resources); err != nil {
		return nil, err
	}
	return spec.Build(in)
}

func namespace(pid int, kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", pid, kind) }

// donor finds the running container whose namespace is to be joined.
func (l *launcher) donor(what, id string) (record, int, error) {
	e, err := l.index.find(id)
	if err != nil {
		return record{}, 0, fault.Conflict("cannot join the %s namespace of container %s: %s", what, id, err)
	}
	rec := e.snapshot()
	if !rec.State.running() || rec.State.Pid == 0 {
		return record{}, 0, fault.Conflict("cannot join %s of a non running container: %s", what, rec.ID)
	}
	return rec, rec.State.Pid, nil
}

// mountShm mounts the /dev/shm that a shareable IPC namespace's containers have in common. It is the only mount on the
// host that a container can have; the cleaning after the exit and the recovery take it away.
func mountShm(dir string, size int64) (string, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return "", err
	}
	unmountShm(dir)
	err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size="+strconv.FormatInt(size, 10))
	if err != nil {
		return "", fmt.Errorf("cannot mount %s: %w", dir, err)
	}
	return dir, nil
}

func unmountShm(dir string) {
	for unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
	}
}

// devices finds what one --device asks for: a node, or all nodes below a folder.
func devices(d container.DeviceMapping) ([]spec.Device, error) {
	access := d.CgroupPermissions
	if access == "" {
		access = "rwm"
	}
	target := d.PathInContainer
	if target == "" {
		target = d.PathOnHost
	}
	bad := func(err error) error {
		return fault.Invalid("error gathering device information while adding custom device %q: %w", d.PathOnHost, err)
	}
	real, err := filepath.EvalSymlinks(d.PathOnHost)
	if err != nil {
		return nil, bad(err)
	}
	var out []spec.Device
	err = filepath.WalkDir(real, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		node, ok, err := device(path, target+strings.TrimPrefix(path, real))
		if ok {
			out = append(out, spec.Device{Node: node, Access: access})
		}
		return err
	})
	if err != nil {
		return nil, bad(err)
	}
	if len(out) == 0 {
		return nil, fault.Invalid("error gathering device information while adding custom device %q: not a device node", d.PathOnHost)
	}
	return out, nil
}

// device describes the node at path, ok only if it is one.
func device(path, target string) (node specs.LinuxDevice, ok bool, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return node, false, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		node.Type = "b"
	case unix.S_IFCHR:
		node.Type = "c"
	default:
		return node, false, nil
	}
	mode := fs.FileMode(st.Mode & 0o777)
	node.Path, node.FileMode, node.UID, node.GID = target, &mode, &st.Uid, &st.Gid
	node.Major, node.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	return node, true, nil
}

// hostDevices are the host's nodes, for privileged containers.
func hostDevices() []specs.LinuxDevice {
	var out []specs.LinuxDevice
	filepath.WalkDir("/dev", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if d.IsDir() {
			switch path {
			case "/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev":
				return fs.SkipDir
			}
			return nil
		}
		if path == "/dev/console" {
			return nil
		}
		if node, ok, err := device(path, path); ok && err == nil {
			out = append(out, node)
		}
		return nil
	})
	return out
}

func blockNumbers(r container.Resources) (map[string]spec.Number, error) {
	paths := spec.BlockDevices(r)
	if len(paths) == 0 {
		return nil, nil
	}
	out := map[string]spec.Number{}
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			return nil, fault.Invalid("cannot limit block device %s: %w", p, err)
		}
		out[p] = spec.Number{Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}
	}
	return out, nil
}
