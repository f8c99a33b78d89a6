package lower

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/calls"
	"tare/internal/runtime/plan"
)

func (l *lowering) mountCall(source, target, kind string, flags uint64, data string) *calls.Call {
	return l.do(unix.SYS_MOUNT, l.str(source), l.str(target), l.str(kind), n(flags), l.str(data))
}

func setRoot(l *lowering, source, path string, flags uint64) {
	l.do(unix.SYS_OPEN_TREE, cwd, l.str(source), n(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)).Out = l.tmp[0]
	placeRoot(l, path)
}

// placeRoot attaches the tree in tmp[0].
func placeRoot(l *lowering, path string) {
	l.about("making the mount below private")
	done := l.p.Label()
	for below := path; ; below, _ = split(below) {
		c := l.mountCall("", below, "", unix.MS_PRIVATE, "")
		if c.Next = done; below == "/" {
			break
		}
		c.On = on(0, unix.EINVAL)
	}
	l.p.Here(done)
	l.about("attaching")
	l.do(unix.SYS_MOVE_MOUNT, calls.Slot(l.tmp[0]), l.str(""), cwd, l.str(path), n(unix.MOVE_MOUNT_F_EMPTY_PATH))
	l.detail = 0
	l.do(calls.Set, calls.Slot(l.tmp[0]), n(l.root))
}

// overlay leaves it to the stage to say what the kernel dislikes, and to do without lowerdir+.
func overlay(l *lowering, st *plan.Step) {
	if st.Source == "" && len(st.List) == 1 {
		setRoot(l, st.List[0], st.Path, 0)
		l.setattr(calls.Slot(l.root), 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		return
	}
	fs := l.tmp[1]
	odd := []calls.On{{Errno: calls.Any, To: l.handOver()}}
	l.do(unix.SYS_FSOPEN, l.str("overlay"), n(unix.FSOPEN_CLOEXEC)).Out = fs
	set := func(key, value string) {
		l.do(unix.SYS_FSCONFIG, calls.Slot(fs), n(unix.FSCONFIG_SET_STRING), l.str(key), l.str(value), n(0)).On = odd
	}
	for _, dir := range st.List {
		set("lowerdir+", dir)
	}
	for _, kv := range OverlayFixed {
		set(kv[0], kv[1])
	}
	if st.Source != "" {
		set("upperdir", st.Source)
		set("workdir", st.Type)
	}
	if st.Data != "" {
		l.do(unix.SYS_FSCONFIG, calls.Slot(fs), n(unix.FSCONFIG_SET_FLAG), l.str(st.Data), n(0), n(0)).On = odd
	}
	l.do(unix.SYS_FSCONFIG, calls.Slot(fs), n(unix.FSCONFIG_CMD_CREATE), n(0), n(0), n(0)).On = odd
	l.do(unix.SYS_FSMOUNT, calls.Slot(fs), n(unix.FSMOUNT_CLOEXEC), n(0)).Out = l.tmp[0]
	l.close(fs)
	placeRoot(l, st.Path)
}

func (l *lowering) setattr(fd calls.Arg, flags uint64, a unix.MountAttr) {
	at := l.p.Words(a.Attr_set, a.Attr_clr, a.Propagation, a.Userns_fd)
	l.do(unix.SYS_MOUNT_SETATTR, fd, l.str(""), n(unix.AT_EMPTY_PATH|flags), n(at), n(32))
}

func propagate(l *lowering, fd uint64, prop uint64) {
	l.about("propagation")
	flags := uint64(0)
	if prop&unix.MS_REC != 0 {
		flags = unix.AT_RECURSIVE
	}
	l.setattr(calls.Slot(fd), flags, unix.MountAttr{Propagation: prop &^ unix.MS_REC})
}

// mount mounts on the working directory, which is the mount point: no path is looked up twice.
func mount(l *lowering, st *plan.Step) {
	target := l.tmp[0]
	l.about("mount point")
	l.ensure(st.Path, true, target)
	if st.Type == "proc" || st.Type == "sysfs" {
		l.close(target)
		l.openIn(l.inRoot(), st.Path, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS, target)
	}
	outsideProc(l, target, st)
	l.about("mount point")
	l.do(unix.SYS_FCHDIR, calls.Slot(target))
	l.detail = 0
	l.mountCall(st.Source, ".", st.Type, st.Flags, st.Data)
	l.close(target)
	afterMount(l, st)
}

// afterMount gives the new mount what mount(2) does not take.
func afterMount(l *lowering, st *plan.Step) {
	if st.Prop|st.RecSet|st.RecClear == 0 {
		return
	}
	target := l.tmp[0]
	l.about("mount point")
	l.openIn(l.inRoot(), st.Path, unix.O_PATH|unix.O_DIRECTORY, 0, target)
	if st.RecSet|st.RecClear != 0 {
		l.about("attributes")
		l.setattr(calls.Slot(target), unix.AT_RECURSIVE, unix.MountAttr{Attr_set: st.RecSet, Attr_clr: st.RecClear})
	}
	if st.Prop != 0 {
		propagate(l, target, st.Prop)
	}
	l.close(target)
}

// tmpfs is the stage's: the mode of what it hides.
func tmpfs(l *lowering, st *plan.Step) {
	p, fd := l.p, l.tmp[0]
	plain, done := p.Label(), p.Label()
	c := l.openIn(l.inRoot(), st.Path, unix.O_PATH|unix.O_DIRECTORY, 0, fd)
	c.On = append(c.On, calls.On{Errno: calls.Any, To: plain})
	outsideProc(l, fd, st)
	l.about("mount point")
	l.do(unix.SYS_FSTAT, calls.Slot(fd), n(l.stat))
	l.do(unix.SYS_FCHDIR, calls.Slot(fd))
	l.close(fd)
	l.detail = 0
	data := "mode="
	if st.Data != "" {
		data = st.Data + "," + data
	}
	at := p.Bytes([]byte(data + "0000\x00"))
	l.do(calls.Octal, calls.Slot(l.stat+statMode), n(at+uint64(len(data))), n(4))
	l.do(unix.SYS_MOUNT, l.str(st.Source), l.str("."), l.str(st.Type), n(st.Flags), n(at)).Next = done
	p.Here(plain)
	l.about("mount point")
	l.ensure(st.Path, true, fd)
	outsideProc(l, fd, st)
	l.about("mount point")
	l.do(unix.SYS_FCHDIR, calls.Slot(fd))
	l.close(fd)
	l.detail = 0
	l.mountCall(st.Source, ".", st.Type, st.Flags, st.Data)
	p.Here(done)
	afterMount(l, st)
}

func bind(l *lowering, st *plan.Step) bool {
	if len(st.Num) != 0 {
		return false
	}
	p, tree, target := l.p, l.tmp[0], l.tmp[1]
	flags := uint64(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if st.Flags&unix.MS_REC != 0 {
		flags |= unix.AT_RECURSIVE
	}
	around, missing := p.Label(), p.Label()
	l.jump(around)
	p.Here(missing)
	l.fail(unix.ENOENT, SourceMissing)
	p.Here(around)
	l.about("source")
	if st.Data == "" {
		c := l.do(unix.SYS_OPEN_TREE, cwd, l.str(st.Source), n(flags))
		c.Out, c.On = tree, on(missing, unix.ENOENT)
	} else {
		top, below := l.tmp[1], l.tmp[2]
		c := l.do(unix.SYS_OPENAT, cwd, l.str(st.Source), n(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
		c.Out, c.On = top, on(missing, unix.ENOENT)
		c = l.openIn(calls.Slot(top), st.Data, unix.O_PATH, 0, below)
		c.On = append(c.On, on(missing, unix.ENOENT)...)
		l.do(unix.SYS_OPEN_TREE, calls.Slot(below), l.str(""), n(flags|unix.AT_EMPTY_PATH)).Out = tree
		l.close(top)
		l.close(below)
	}
	l.do(unix.SYS_FSTAT, calls.Slot(tree), n(l.stat))
	file, ready := p.Label(), p.Label()
	l.about("mount point")
	l.isKind(unix.S_IFDIR, file)
	l.ensure(st.Path, true, target)
	l.jump(ready)
	p.Here(file)
	l.ensure(st.Path, false, target)
	p.Here(ready)
	outsideProc(l, target, st)
	l.about("attributes")
	if st.RecSet|st.RecClear != 0 {
		l.setattr(calls.Slot(tree), unix.AT_RECURSIVE, unix.MountAttr{Attr_set: st.RecSet, Attr_clr: st.RecClear})
	}
	if st.Set|st.Clear != 0 {
		l.setattr(calls.Slot(tree), 0, unix.MountAttr{Attr_set: st.Set, Attr_clr: st.Clear})
	}
	l.detail = 0
	moveMount(l, tree, target)
	if st.Prop != 0 {
		propagate(l, tree, st.Prop)
	}
	l.close(target)
	l.close(tree)
	return true
}

func moveMount(l *lowering, tree, target uint64) {
	l.do(unix.SYS_MOVE_MOUNT, calls.Slot(tree), l.str(""), calls.Slot(target), l.str(""), n(moveByFD))
}

func mask(l *lowering, path string) {
	p, fd, null, tree := l.p, l.tmp[0], l.tmp[1], l.tmp[2]
	done, file, other := p.Label(), p.Label(), p.Label()
	openMasked(l, path, fd, done)
	l.do(unix.SYS_FCHDIR, calls.Slot(fd)).On = on(file, unix.ENOTDIR)
	hidden := p.Label()
	l.mountCall("tmpfs", ".", "tmpfs", unix.MS_RDONLY, "").Next = hidden
	p.Here(other)
	l.fail(unix.ENODEV, "/dev/null of the container is something else")
	p.Here(file)
	l.about("/dev/null")
	l.openIn(l.inRoot(), "/dev/null", unix.O_PATH, 0, null)
	l.do(unix.SYS_FSTAT, calls.Slot(null), n(l.stat))
	l.isKind(unix.S_IFCHR, other)
	l.test(l.stat+statRdev, ^uint64(0), unix.Mkdev(1, 3), other)
	l.detail = 0
	l.do(unix.SYS_OPEN_TREE, calls.Slot(null), l.str(""), n(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)).Out = tree
	moveMount(l, tree, fd)
	l.close(null)
	l.close(tree)
	p.Here(hidden)
	l.close(fd)
	p.Here(done)
}

func readonly(l *lowering, path string) {
	fd, tree, done := l.tmp[0], l.tmp[1], l.p.Label()
	openMasked(l, path, fd, done)
	l.do(unix.SYS_OPEN_TREE, calls.Slot(fd), l.str(""), n(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)).Out = tree
	l.setattr(calls.Slot(tree), unix.AT_RECURSIVE, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	moveMount(l, tree, fd)
	l.close(tree)
	l.close(fd)
	l.p.Here(done)
}

func attr(l *lowering, st *plan.Step) {
	a := unix.MountAttr{Attr_set: st.Set, Attr_clr: st.Clear}
	if st.Path == "/" {
		l.setattr(l.inRoot(), 0, a)
		return
	}
	l.openIn(l.inRoot(), st.Path, unix.O_PATH, 0, l.tmp[0])
	l.setattr(calls.Slot(l.tmp[0]), 0, a)
	l.close(l.tmp[0])
}

func device(l *lowering, st *plan.Step) {
	p, fd := l.p, l.tmp[0]
	dir, name := split(st.Path)
	l.ensure(dir, true, fd)
	kind := uint32(unix.S_IFCHR)
	switch st.Type {
	case "b":
		kind = unix.S_IFBLK
	case "p":
		kind = unix.S_IFIFO
	}
	dev := unix.Mkdev(uint32(st.Num[0]), uint32(st.Num[1]))
	there, other, done := p.Label(), p.Label(), p.Label()
	c := l.do(unix.SYS_MKNODAT, calls.Slot(fd), l.str(name), n(kind|uint32(st.Num[2])), n(dev))
	c.On = on(there, unix.EEXIST)
	if st.Num[3]|st.Num[4] != 0 {
		l.do(unix.SYS_FCHOWNAT, calls.Slot(fd), l.str(name), n(st.Num[3]), n(st.Num[4]), n(unix.AT_SYMLINK_NOFOLLOW))
	}
	l.jump(done)
	p.Here(other)
	l.fail(unix.EEXIST, "something else is there")
	p.Here(there)
	l.detail = 0
	l.do(unix.SYS_NEWFSTATAT, calls.Slot(fd), l.str(name), n(l.stat), n(unix.AT_SYMLINK_NOFOLLOW))
	l.isKind(uint64(kind), other)
	if kind != unix.S_IFIFO {
		l.test(l.stat+statRdev, ^uint64(0), dev, other)
	}
	p.Here(done)
	l.close(fd)
}

// makeCwd makes a directory that the process will need; where it can't, OpCwd says so.
func makeCwd(l *lowering, path string) {
	done := l.p.Label()
	c := l.openIn(l.inRoot(), path, unix.O_PATH|unix.O_DIRECTORY, 0, l.tmp[0])
	missing := l.p.Label()
	c.On = append(c.On, calls.On{Errno: uint16(unix.ENOENT), To: missing}, calls.On{Errno: calls.Any, To: done})
	l.close(l.tmp[0])
	l.jump(done)
	l.p.Here(missing)
	if odd := l.handOver(); l.opts.StageFD != 0 { // the stage makes it, or does not
		l.jump(odd)
	}
	l.p.Here(done)
}

// console is the stage's; the controlling terminal is taken by the one that becomes the program.
func console(l *lowering, st *plan.Step) {
	p, tty := l.p, l.tmp[0]
	l.master = p.Words(20, unix.SOL_SOCKET|unix.SCM_RIGHTS<<32, 0) + 2*8 // struct cmsghdr and its descriptor
	other, good := p.Label(), p.Label()
	l.about("/dev/pts/ptmx")
	l.openIn(l.inRoot(), "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, unix.RESOLVE_NO_SYMLINKS, l.master)
	l.do(unix.SYS_FSTATFS, calls.Slot(l.master), n(l.stat))
	var fs unix.Statfs_t
	mask := ^uint64(0)
	if unsafe.Sizeof(fs.Type) == 4 {
		mask >>= 32
	}
	l.test(l.stat+uint64(unsafe.Offsetof(fs.Type)), mask, devptsMagic, other)
	l.do(unix.SYS_FSTAT, calls.Slot(l.master), n(l.stat))
	l.isKind(unix.S_IFCHR, other)
	l.test(l.stat+statRdev, ^uint64(0), unix.Mkdev(5, 2), other)
	l.jump(good)
	p.Here(other)
	l.fail(unix.ENOTTY, "/dev/pts/ptmx of the container is not a pty master")
	p.Here(good)
	l.about("unlock")
	l.do(unix.SYS_IOCTL, calls.Slot(l.master), n(unix.TIOCSPTLCK), n(p.Words(0)))
	l.about("peer")
	l.do(unix.SYS_IOCTL, calls.Slot(l.master), n(unix.TIOCGPTPEER), n(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)).Out = tty
	if st.Num[0]|st.Num[1] != 0 {
		l.about("size") // struct winsize: rows, columns
		l.do(unix.SYS_IOCTL, calls.Slot(tty), n(unix.TIOCSWINSZ), n(p.Words(st.Num[1]&0xffff|st.Num[0]&0xffff<<16)))
	}
	l.about("owner")
	l.do(unix.SYS_FCHOWN, calls.Slot(tty), n(st.Num[2]), n(^uint32(0)))
	if st.Path != "" {
		l.about("/dev/console")
		l.ensure(st.Path, false, l.tmp[1])
		l.close(l.tmp[1])
		l.openIn(l.inRoot(), st.Path, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS, l.tmp[1])
		l.do(unix.SYS_OPEN_TREE, calls.Slot(tty), l.str(""), n(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)).Out = l.tmp[2]
		moveMount(l, l.tmp[2], l.tmp[1])
		l.close(l.tmp[2])
		l.close(l.tmp[1])
	}
	l.detail = 0
	for fd := range 3 {
		l.do(unix.SYS_DUP3, calls.Slot(tty), n(fd), n(0))
	}
	l.close(tty)
	if !l.late {
		l.about("controlling terminal")
		l.do(unix.SYS_IOCTL, n(0), n(unix.TIOCSCTTY), n(0))
	}
	l.detail = 0
}

func pivot(l *lowering) {
	old := l.tmp[0]
	l.do(unix.SYS_OPENAT, cwd, l.str("/"), n(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)).Out = old
	l.do(unix.SYS_FCHDIR, l.inRoot())
	l.do(unix.SYS_PIVOT_ROOT, l.str("."), l.str("."))
	l.do(unix.SYS_FCHDIR, calls.Slot(old))
	l.mountCall("", ".", "", unix.MS_SLAVE|unix.MS_REC, "")
	l.do(unix.SYS_UMOUNT2, l.str("."), n(unix.MNT_DETACH))
	l.do(unix.SYS_CHDIR, l.str("/"))
	l.close(old)
}
func outsideProc(l *lowering, target uint64, st *plan.Step) {
	if MayCover(st) {
		return
	}
	p := l.p
	outside := p.Label()
	offset, mask := StatfsType()
	l.about("mount point")
	l.do(unix.SYS_FSTATFS, calls.Slot(target), n(l.stat))
	l.test(l.stat+offset, mask, unix.PROC_SUPER_MAGIC, outside)
	l.fail(unix.EINVAL, InsideProc)
	p.Here(outside)
	l.detail = 0
}

func openMasked(l *lowering, path string, out uint64, missing calls.Label) {
	base, rest := l.inRoot(), path
	if top, magic := Trusted(l.pl.Steps, path); top != "" {
		base, rest = calls.Slot(trustedTop(l, top, magic)), path[len(top):]
	}
	l.detail = 0
	c := l.openIn(base, rest, unix.O_PATH, 0, out)
	c.On = append(c.On, on(missing, unix.ENOENT, unix.ENOTDIR)...)
}

// trustedTop is the slot of a descriptor of that directory, which is opened once.
func trustedTop(l *lowering, top string, magic uint64) uint64 {
	if slot, ok := l.tops[top]; ok {
		return slot
	}
	p := l.p
	dir, other, good := p.Words(0), p.Label(), p.Label()
	offset, mask := StatfsType()
	l.about(Exchanged)
	l.openIn(l.inRoot(), top, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS, dir)
	l.do(unix.SYS_FSTATFS, calls.Slot(dir), n(l.stat))
	l.test(l.stat+offset, mask, magic, other)
	l.jump(good)
	p.Here(other)
	l.fail(unix.EXDEV, Exchanged)
	p.Here(good)
	if l.tops == nil {
		l.tops = map[string]uint64{}
	}
	l.tops[top] = dir
	return dir
}
