package oci

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/runtime"
	"tare/internal/runtime/cgroup"
)

// Checkpoints are criu's (criu(8)): it writes the processes of a container to a folder, and makes them again
// from it. What this file adds is what criu can't know: the container's root, and which mounts come from the host.

// criuFlags are those that checkpoint and restore share.
type criuFlags struct {
	images, work, parent string
	tcp, tcpClose        bool
	unixSockets          bool
	fileLocks, shell     bool
	cgroups              string
	lsmProfile, lsmMount string
	emptyNS              words
}

func (c *criuFlags) flags(set *flag.FlagSet) {
	set.StringVar(&c.images, "image-path", "checkpoint", "folder of the checkpoint")
	set.StringVar(&c.work, "work-path", "", "folder for criu's log; the image path without")
	set.StringVar(&c.parent, "parent-path", "", "earlier checkpoint, relative to the image path")
	set.BoolVar(&c.tcp, "tcp-established", false, "keep TCP connections")
	set.BoolVar(&c.unixSockets, "ext-unix-sk", false, "allow unix sockets to the outside")
	set.BoolVar(&c.fileLocks, "file-locks", false, "keep file locks")
	set.BoolVar(&c.shell, "shell-job", false, "allow a terminal of the outside")
	set.StringVar(&c.cgroups, "manage-cgroups-mode", "", "soft, full, strict or ignore")
	set.Var(&c.emptyNS, "empty-ns", "namespaces to leave empty: network")
}

// run executes criu and turns its log's errors into ours.
func (c *criuFlags) run(what, id string, args []string, files []*os.File) error {
	program, err := exec.LookPath("criu")
	if err != nil {
		return fault.Unsupported("cannot %s container %s: criu is not installed (package criu)", what, id)
	}
	if c.work == "" {
		c.work = c.images
	}
	for _, dir := range []*string{&c.images, &c.work} {
		if *dir, err = filepath.Abs(*dir); err == nil {
			err = os.MkdirAll(*dir, 0o700)
		}
		if err != nil {
			return fault.Invalid("cannot %s container %s: %w", what, id, err)
		}
	}
	log := what + ".log"
	all := append([]string{args[0], "--images-dir", c.images, "--work-dir", c.work, "--log-file", log, "-v4"}, args[1:]...)
	for _, f := range []struct {
		on   bool
		flag string
	}{{c.tcp, "--tcp-established"}, {c.tcpClose, "--tcp-close"}, {c.unixSockets, "--ext-unix-sk"}, {c.fileLocks, "--file-locks"}, {c.shell, "--shell-job"}} {
		if f.on {
			all = append(all, f.flag)
		}
	}
	mode := c.cgroups
	if mode == "" {
		mode = "soft"
	}
	all = append(all, "--manage-cgroups="+mode)
	for _, n := range c.emptyNS {
		if n != "network" {
			return fault.Unsupported("--empty-ns %s: criu knows network only", n)
		}
		all = append(all, "--empty-ns", "net")
	}
	var out bytes.Buffer
	cmd := exec.Command(program, all...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, &out, &out
	cmd.ExtraFiles = files
	if err := cmd.Run(); err != nil {
		return fault.Internal("cannot %s container %s: criu: %w: %s%s (%s has more)", what, id, err, firstErrors(filepath.Join(c.work, log)), lastLine(out.String()), filepath.Join(c.work, log))
	}
	return nil
}

// firstErrors are the lines of criu's log that say what went wrong.
func firstErrors(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "Error (") && len(lines) < 3 {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "; ")
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// external names the mounts that come from outside of the container, for criu: by the path inside and, for restore, the path on the host.
func external(s *specs.Spec, restoring bool) (args []string) {
	add := func(inside, host string) {
		e := "mnt[" + inside + "]:" + inside
		if restoring {
			e = "mnt[" + inside + "]:" + host
		}
		args = append(args, "--external", e)
	}
	for _, m := range s.Mounts {
		if m.Type == "bind" || hasOption(m, "bind") || hasOption(m, "rbind") {
			add(filepath.Clean(m.Destination), m.Source)
		}
	}
	for _, p := range s.Linux.MaskedPaths {
		at := filepath.Join(s.Root.Path, p)
		if strings.HasPrefix(p, "/proc/") || strings.HasPrefix(p, "/sys/") {
			at = p // the kernel's own, on both sides
		}
		// A directory has a tmpfs over it, which is the container's own.
		if st, err := os.Stat(at); err == nil && !st.IsDir() {
			add(p, "/dev/null")
		}
	}
	for _, n := range s.Linux.Namespaces {
		if n.Path == "" {
			continue
		}
		kind := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.PIDNamespace: "pid"}[n.Type]
		st, err := os.Stat(n.Path)
		if kind == "" || err != nil {
			continue
		}
		if !restoring {
			args = append(args, "--external", kind+"["+strconv.FormatUint(st.Sys().(*syscall.Stat_t).Ino, 10)+"]:ext"+kind)
		}
	}
	return args
}

func hasOption(m specs.Mount, want string) bool {
	for _, o := range m.Options {
		if o == want {
			return true
		}
	}
	return false
}

// checkpoint writes a running container to a folder and, unless told otherwise, ends and forgets it.
func checkpoint(g *global, set *flag.FlagSet, args []string) (int, error) {
	var c criuFlags
	c.flags(set)
	leave := set.Bool("leave-running", false, "let the container go on")
	preDump := set.Bool("pre-dump", false, "write the memory only, let the container go on")
	lazy := set.Bool("lazy-pages", false, "refused")
	autoDedup := set.Bool("auto-dedup", false, "remove pages from the parent that this one has")
	pageServer := set.String("page-server", "", "refused")
	statusFD := set.String("status-fd", "", "refused")
	if err := parse(set, args, 1, 1); err != nil {
		return 1, err
	}
	if *lazy || *pageServer+*statusFD != "" {
		return 1, fault.Unsupported("--lazy-pages, --page-server and --status-fd are not supported by this runtime")
	}
	r, dir, err := g.load(set.Arg(0))
	if err != nil {
		return 1, err
	}
	if r.Status != specs.StateRunning && r.Status != specs.ContainerState(runtime.Paused) {
		return 1, fault.Conflict("Container cannot be checkpointed in %s state", r.Status)
	}
	s, err := r.spec(dir)
	if err != nil {
		return 1, err
	}
	verb := "dump"
	if *preDump {
		verb = "pre-dump"
	}
	call := []string{verb, "--tree", strconv.Itoa(r.Pid), "--root", s.Root.Path}
	if *leave || *preDump {
		call = append(call, "--leave-running")
	}
	if *preDump {
		call = append(call, "--track-mem")
	}
	if c.parent != "" {
		call = append(call, "--prev-images-dir", c.parent, "--track-mem")
	}
	if *autoDedup {
		call = append(call, "--auto-dedup")
	}
	if freezer := freezerOf(r); freezer != "" {
		call = append(call, "--freeze-cgroup", freezer)
	}
	call = append(call, external(s, false)...)
	streams := streamsOf(r.Pid)
	for _, key := range streams {
		if strings.HasPrefix(key, "file[") {
			call = append(call, "--external", key)
		}
	}
	if err := os.MkdirAll(c.images, 0o700); err != nil {
		return 1, fault.Invalid("cannot checkpoint container %s: %w", r.ID, err)
	}
	if err := files.WriteJSON(filepath.Join(c.images, streamsFile), streams, files.Fast); err != nil {
		return 1, fault.Internal("cannot checkpoint container %s: %w", r.ID, err)
	}
	if err := c.run("checkpoint", r.ID, call, nil); err != nil {
		return 1, err
	}
	if *leave || *preDump {
		return 0, nil
	}
	return 0, g.delete(r, dir)
}

// streamsFile in a checkpoint has criu's names of the standard streams, which are the outside's.
const streamsFile = "descriptors.json"

// streamsOf names what a process's standard streams are: a pipe, or a file by its mount and inode, in hexadecimal digits.
func streamsOf(pid int) []string {
	names := make([]string, 3)
	for fd := range names {
		at := "/proc/" + strconv.Itoa(pid) + "/fd"
		link, err := os.Readlink(at + "/" + strconv.Itoa(fd))
		if err != nil || strings.Contains(link, "socket:") || strings.HasPrefix(link, "/dev/pts/") {
			continue
		}
		if strings.HasPrefix(link, "pipe:") {
			names[fd] = link
			continue
		}
		info, err := os.ReadFile(at + "info/" + strconv.Itoa(fd))
		st, serr := os.Stat(at + "/" + strconv.Itoa(fd))
		if err != nil || serr != nil {
			continue
		}
		for line := range strings.Lines(string(info)) {
			if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
				n, _ := strconv.Atoi(strings.TrimSpace(id))
				names[fd] = "file[" + strconv.FormatInt(int64(n), 16) + ":" + strconv.FormatUint(st.Sys().(*syscall.Stat_t).Ino, 16) + "]"
			}
		}
	}
	return names
}

// freezerOf is the folder by which criu stops the processes; "" leaves it to criu's own way.
func freezerOf(r *record) string {
	h, err := cgroup.Mounted()
	if err != nil || cgroup.IsUnit(r.Cgroup) {
		return ""
	}
	if h.V2 {
		return h.Controllers[""] + r.Cgroup
	}
	if m := h.Controllers["freezer"]; m != "" {
		return m + filepath.Clean("/"+r.Cgroup)
	}
	return ""
}

// restore makes a container from a bundle and a checkpoint.
func restore(g *global, set *flag.FlagSet, args []string) (int, error) {
	var c criuFlags
	var o options
	c.flags(set)
	o.flags(set)
	bundleFlag(set, &o)
	set.BoolVar(&o.detach, "detach", false, "don't wait for the container's end")
	set.BoolVar(&o.detach, "d", false, "short for --detach")
	set.BoolVar(&c.tcpClose, "tcp-close", false, "close TCP connections")
	set.StringVar(&c.lsmProfile, "lsm-profile", "", "security profile, as TYPE:NAME")
	set.StringVar(&c.lsmMount, "lsm-mount-context", "", "SELinux label of mounts")
	set.Bool("no-subreaper", false, "accepted: the process is criu's sibling")
	autoDedup := set.Bool("auto-dedup", false, "remove pages from the checkpoint that were read")
	lazy := set.Bool("lazy-pages", false, "refused")
	if err := parse(set, args, 1, 1); err != nil {
		return 1, err
	}
	if *lazy {
		return 1, fault.Unsupported("--lazy-pages is not supported by this runtime")
	}
	if _, err := os.Stat(c.images); errors.Is(err, fs.ErrNotExist) {
		return 1, fault.NotFound("cannot restore container %s: there is no checkpoint %s", set.Arg(0), c.images)
	}
	n, err := g.newContainer(set.Arg(0), o)
	if err != nil {
		return 1, err
	}
	if err := n.restore(&c, *autoDedup); err != nil {
		n.discard()
		return 1, err
	}
	if o.detach {
		return 0, nil
	}
	// The process is nobody's child here that could be waited for: its end is seen by its descriptor.
	pidfd, err := unix.PidfdOpen(n.rec.Pid, 0)
	if err == nil {
		defer unix.Close(pidfd)
		var fg foreground
		fg.begin(pidfd, nil)
		defer fg.end()
		code, werr := fg.wait(n.rec.Pid)
		if werr != nil {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
			code = 0
		}
		return code, g.delete(&n.rec, n.dir)
	}
	return 1, fault.Internal("the restored process %d is gone: %w", n.rec.Pid, err)
}

func (n *container) restore(c *criuFlags, autoDedup bool) error {
	if err := files.WriteJSON(filepath.Join(n.dir, specFile), n.spec, files.Fast); err != nil {
		return fault.Internal("cannot keep the spec of container %s: %w", n.id, err)
	}
	if n.spec.Process.Terminal {
		return fault.Unsupported("restoring a container with a terminal is not supported by this runtime")
	}
	if err := n.group.Create(n.spec.Linux.Resources); err != nil {
		return err
	}
	// criu wants a root that is a mount of its own.
	root := filepath.Join(n.dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(n.spec.Root.Path, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fault.Internal("cannot bind the root of container %s: %w", n.id, err)
	}
	defer func() {
		_ = unix.Unmount(root, unix.MNT_DETACH)
		_ = os.Remove(root)
	}()
	pidFile := filepath.Join(n.dir, "criu.pid")
	call := []string{"restore", "--restore-detached", "--restore-sibling", "--root", root, "--pidfile", pidFile, "--mntns-compat-mode"}
	if g := n.spec.Linux.CgroupsPath; !cgroup.IsUnit(g) {
		call = append(call, "--cgroup-root", filepath.Clean("/"+g))
	}
	if autoDedup {
		call = append(call, "--auto-dedup")
	}
	if c.lsmProfile != "" {
		call = append(call, "--lsm-profile", c.lsmProfile)
	}
	if c.lsmMount != "" {
		call = append(call, "--lsm-mount-context", c.lsmMount)
	}
	call = append(call, external(n.spec, true)...)
	var streams []string
	if err := files.ReadJSON(filepath.Join(c.images, streamsFile), &streams); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Invalid("cannot read the checkpoint: %w", err)
	}
	for i, key := range streams {
		if key != "" && i < 3 {
			call = append(call, "--inherit-fd", "fd["+strconv.Itoa(3+i)+"]:"+key)
		}
	}
	if err := c.run("restore", n.id, call, []*os.File{os.Stdin, os.Stdout, os.Stderr}); err != nil {
		return err
	}
	b, err := os.ReadFile(pidFile)
	if err == nil {
		n.rec.Pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	if err != nil {
		return fault.Internal("criu told no pid of container %s: %w", n.id, err)
	}
	_, began, err := procStat(n.rec.Pid)
	if err != nil {
		return fault.Internal("the restored process of container %s is gone: %w", n.id, err)
	}
	n.rec.Status, n.rec.StartTime, n.rec.Created = specs.StateRunning, began, time.Now().UTC()
	if err := n.rec.save(n.dir); err != nil {
		return fault.Internal("cannot write the state of container %s: %w", n.id, err)
	}
	if err := writePid(n.pidFile, n.rec.Pid); err != nil {
		return err
	}
	if n.spec.Hooks != nil {
		return n.g.runHooks("poststart", n.spec.Hooks.Poststart, n.rec.state(specs.StateRunning))
	}
	return nil
}
