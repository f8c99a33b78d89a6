package plan

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Op is the kind of a step. The comment names the fields of Step it reads.
// "In the root" means: resolved so that no symlink leaves the new root.
type Op uint8

const (
	OpNone            Op = iota
	OpCgroup             // write "0" to the file Path: the process moves itself
	OpUnshare            // Flags
	OpSetns              // open Path, enter it as a namespace of type Flags
	OpJoin               // enter the container's namespaces Flags through its pidfd
	OpKeyring            // a new, empty session keyring
	OpLoopback           // bring up lo
	OpHostname           // Data
	OpDomainname         // Data
	OpLabel              // write Data to the file Path of the process's own security attributes
	OpAffinity           // Num = mask of CPUs, 64 a word
	OpMemoryPolicy       // Flags = mode and its flags; Num = mask of nodes, 64 a word
	OpSysctl             // write Data to Path below /proc/sys
	OpOOM                // write Data to oom_score_adj, as far as allowed
	OpPersonality        // Flags
	OpPropagation        // Path on the host, Prop
	OpOverlay            // mount List (lower), Source (upper), Type (work), Data ("volatile") on the host's Path: the root
	OpRoot               // bind the host's Path on itself: the root
	OpMount              // mount Source of Type with Flags and Data on Path in the root; then RecSet, RecClear; then Prop
	OpTmpfs              // OpMount of a tmpfs that gets the mode of the directory at Path, if there is one
	OpCopyUp             // OpMount of a tmpfs that starts with what is at Path
	OpRemount            // change the mount at Path in the root: Set and Clear, or with Type its file system's Flags and Data
	OpBind               // bind Source (host), or Data below it, resolved as if Source were /, on Path in the root; Flags MS_REC; Set, Clear and RecSet, RecClear attributes; Num an id mapping (see IDMap); Prop
	OpSymlink            // Path in the root points to Source; an existing one stays
	OpDevice             // node Path in the root: Type c, b or p, Num[0..4] = major, minor, mode, uid, gid
	OpHostDevice         // the same by binding the host's node Source, where a user namespace forbids to make one
	OpMask               // hide Path in the root; missing is fine
	OpReadonly           // make Path in the root read-only, recursively; missing is fine
	OpAttr               // set Set on the mount at Path in the root
	OpConsole            // open a pty, Num = columns, rows, uid; bind it on Path if any; make it stdio
	OpMakeCwd            // make Path in the root if missing
	OpRuntime            // report; wait until the runtime has done its part (hooks, network devices)
	OpHook               // run Path with List and Env; Num[0] = seconds, 0 for ever; Type names it; Data = state without its pid
	OpPivot              // make the root the only file system; Flags 1: without pivot_root
	OpRootPropagation    // Prop, on the root
	OpReady              // report; wait for the word to go
	OpRlimit             // Num = resource, soft, hard; Flags 1: clamp to what is allowed
	OpUmask              // Num[0]
	OpCwd                // Path in the root
	OpStdioOwner         // Num[0] = uid
	OpScheduler          // Num = policy, flags, nice, priority, runtime, deadline, period of sched_setattr(2)
	OpIOPriority         // Num[0] = class and priority of ioprio_set(2)
	OpBounding           // Num[0] = mask to keep
	OpUser               // Num = uid, gid, additional gids…
	OpCapabilities       // Num = effective, permitted, inheritable, ambient masks
	OpNoNewPrivs         //
	OpSeccomp            // Data = BPF, Flags of seccomp(2)
	OpExec               // List = arguments, Env; Num[0] = uid whose home is HOME if that is unset
	opEnd
)

// Step is one act.
type Step struct {
	Op  Op
	Why string // the spec's field

	Path, Source, Type, Data string
	Flags, Prop              uint64
	Set, Clear               uint64 // MOUNT_ATTR_… of one mount
	RecSet, RecClear         uint64 // MOUNT_ATTR_… of a mount and all below it
	Num                      []uint64
	List, Env                []string

	// FD is set on the way to the stage, never by Compile: 0, or the descriptor with what the
	// parent made ready for this step, or ByParent.
	FD uint64
}

// ByParent in FD says that the parent does the step.
const ByParent = 1

// String says what the step does, without its reason.
func (s *Step) String() string {
	switch s.Op {
	case OpCgroup:
		return "join cgroup " + s.Path
	case OpUnshare:
		return "unshare " + flagNames(s.Flags, cloneNames)
	case OpSetns:
		return "enter " + flagNames(s.Flags, cloneNames) + " " + s.Path
	case OpJoin:
		return "enter the container's " + flagNames(s.Flags, cloneNames)
	case OpKeyring:
		return "join a new session keyring"
	case OpLoopback:
		return "bring up lo"
	case OpHostname:
		return "set host name " + s.Data
	case OpDomainname:
		return "set domain name " + s.Data
	case OpLabel:
		return "set " + s.Path + " to " + s.Data
	case OpAffinity:
		return "run on CPUs " + bits(s.Num)
	case OpMemoryPolicy:
		return fmt.Sprintf("set memory policy %#x", s.Flags) + orNothing(" on nodes ", bits(s.Num))
	case OpSysctl:
		return "write " + s.Data + " to " + s.Path
	case OpOOM:
		return "set oom_score_adj " + s.Data
	case OpPersonality:
		return fmt.Sprintf("set personality %#x", s.Flags)
	case OpPropagation:
		return "make " + s.Path + " " + propagationName(s.Prop)
	case OpOverlay:
		return "mount overlay as root, lower " + strings.Join(s.List, ":") + orNothing(", upper ", s.Source) + orNothing(", work ", s.Type) + orNothing(", ", s.Data) + ", on " + s.Path
	case OpRoot:
		return "bind root " + s.Path
	case OpMount, OpTmpfs:
		return "mount " + s.Source + " on " + s.Path + " type " + s.Type + parens(flagNames(s.Flags, mountNames), s.Data, attrNames("r", s.RecSet, s.RecClear), propagationName(s.Prop))
	case OpCopyUp:
		return "mount tmpfs on " + s.Path + " with what is there" + parens(flagNames(s.Flags, mountNames), s.Data, attrNames("r", s.RecSet, s.RecClear), propagationName(s.Prop))
	case OpRemount:
		if s.Type == "" {
			return "change mount " + s.Path + parens(attrNames("", s.Set, s.Clear), attrNames("r", s.RecSet, s.RecClear), propagationName(s.Prop))
		}
		return "change file system at " + s.Path + parens(flagNames(s.Flags, mountNames), s.Data)
	case OpBind:
		return "bind " + s.Source + orNothing(", of it ", s.Data) + " on " + s.Path + parens(flagNames(s.Flags, mountNames), attrNames("", s.Set, s.Clear), attrNames("r", s.RecSet, s.RecClear), mappingName(s.Num), propagationName(s.Prop))
	case OpSymlink:
		return "link " + s.Path + " to " + s.Source
	case OpDevice:
		return fmt.Sprintf("make device %s %s %d:%d mode %04o owner %d:%d", s.Path, s.Type, s.Num[0], s.Num[1], s.Num[2], s.Num[3], s.Num[4])
	case OpHostDevice:
		return fmt.Sprintf("bind device %s %s %d:%d of the host", s.Path, s.Type, s.Num[0], s.Num[1])
	case OpMask:
		return "mask " + s.Path
	case OpReadonly:
		return "make " + s.Path + " read-only"
	case OpAttr:
		return "change mount " + s.Path + parens(attrNames("", s.Set, s.Clear))
	case OpConsole:
		return fmt.Sprintf("open terminal %dx%d for %d", s.Num[0], s.Num[1], s.Num[2]) + orNothing(" at ", s.Path)
	case OpMakeCwd:
		return "make directory " + s.Path + " if missing"
	case OpRuntime:
		return "report, wait for the runtime"
	case OpHook:
		t := ""
		if s.Num[0] != 0 {
			t = fmt.Sprintf(", at most %d s", s.Num[0])
		}
		return fmt.Sprintf("run %s %q env %q", s.Path, s.List, s.Env) + t
	case OpPivot:
		if s.Flags != 0 {
			return "move the root to / and change into it"
		}
		return "pivot into the root"
	case OpRootPropagation:
		return "make / " + propagationName(s.Prop)
	case OpReady:
		return "report created, wait for start"
	case OpRlimit:
		c := ""
		if s.Flags != 0 {
			c = ", or what is allowed"
		}
		return "limit " + rlimitName(s.Num[0]) + " " + limit(s.Num[1]) + " " + limit(s.Num[2]) + c
	case OpUmask:
		return fmt.Sprintf("set umask %04o", s.Num[0])
	case OpCwd:
		return "change directory to " + s.Path
	case OpStdioOwner:
		return fmt.Sprintf("give standard streams to %d", s.Num[0])
	case OpScheduler:
		return fmt.Sprintf("schedule with policy %d, flags %#x, nice %d, priority %d, runtime %d, deadline %d, period %d", s.Num[0], s.Num[1], int32(s.Num[2]), s.Num[3], s.Num[4], s.Num[5], s.Num[6])
	case OpIOPriority:
		return fmt.Sprintf("set I/O priority %d of class %d", s.Num[0]&(1<<13-1), s.Num[0]>>13)
	case OpBounding:
		return "keep in bounding set " + capNames(s.Num[0])
	case OpUser:
		return "become " + nums(s.Num)
	case OpCapabilities:
		return "set effective " + capNames(s.Num[0]) + "; permitted " + capNames(s.Num[1]) + "; inheritable " + capNames(s.Num[2]) + "; ambient " + capNames(s.Num[3])
	case OpNoNewPrivs:
		return "set no_new_privs"
	case OpSeccomp:
		return fmt.Sprintf("install seccomp filter, %d instructions, flags %#x", len(s.Data)/8, s.Flags)
	case OpExec:
		return fmt.Sprintf("execute %q env %q", s.List, s.Env)
	}
	return "unknown step " + strconv.Itoa(int(s.Op))
}

func orNothing(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func parens(parts ...string) string {
	var have []string
	for _, p := range parts {
		if p != "" {
			have = append(have, p)
		}
	}
	if have == nil {
		return ""
	}
	return " (" + strings.Join(have, ",") + ")"
}

func limit(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

func nums(ns []uint64) string {
	var b strings.Builder
	for i, n := range ns {
		switch i {
		case 0:
			b.WriteString("user ")
		case 1:
			b.WriteString(" group ")
		case 2:
			b.WriteString(" also ")
		default:
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(n, 10))
	}
	return b.String()
}

type name struct {
	bit  uint64
	name string
}

var cloneNames = []name{
	{unix.CLONE_NEWNS, "mount"}, {unix.CLONE_NEWPID, "pid"}, {unix.CLONE_NEWNET, "network"},
	{unix.CLONE_NEWUTS, "uts"}, {unix.CLONE_NEWIPC, "ipc"}, {unix.CLONE_NEWCGROUP, "cgroup"}, {unix.CLONE_NEWUSER, "user"}, {unix.CLONE_NEWTIME, "time"},
}

var mountNames = []name{
	{unix.MS_RDONLY, "ro"}, {unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"},
	{unix.MS_SYNCHRONOUS, "sync"}, {unix.MS_REMOUNT, "remount"}, {unix.MS_MANDLOCK, "mand"}, {unix.MS_DIRSYNC, "dirsync"},
	{unix.MS_NOATIME, "noatime"}, {unix.MS_NODIRATIME, "nodiratime"}, {unix.MS_BIND, "bind"}, {unix.MS_REC, "recursive"},
	{unix.MS_RELATIME, "relatime"}, {unix.MS_STRICTATIME, "strictatime"}, {unix.MS_LAZYTIME, "lazytime"},
	{unix.MS_SILENT, "silent"}, {unix.MS_I_VERSION, "iversion"}, {unix.MS_NOSYMFOLLOW, "nosymfollow"}, {unix.MS_POSIXACL, "acl"},
}

// bits lists the numbers that a mask has.
func bits(mask []uint64) string {
	var have []string
	for i, w := range mask {
		for b := range 64 {
			if w&(1<<b) != 0 {
				have = append(have, strconv.Itoa(64*i+b))
			}
		}
	}
	return strings.Join(have, ",")
}

func flagNames(f uint64, table []name) string {
	var have []string
	for _, n := range table {
		if f&n.bit != 0 {
			have = append(have, n.name)
			f &^= n.bit
		}
	}
	if f != 0 {
		have = append(have, fmt.Sprintf("%#x", f))
	}
	return strings.Join(have, ",")
}

var attrBits = []name{
	{unix.MOUNT_ATTR_RDONLY, "ro"}, {unix.MOUNT_ATTR_NOSUID, "nosuid"}, {unix.MOUNT_ATTR_NODEV, "nodev"}, {unix.MOUNT_ATTR_NOEXEC, "noexec"},
	{unix.MOUNT_ATTR_NOATIME, "noatime"}, {unix.MOUNT_ATTR_STRICTATIME, "strictatime"}, {unix.MOUNT_ATTR_NODIRATIME, "nodiratime"},
	{unix.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"},
}

func attrNames(prefix string, set, clear uint64) string {
	var have []string
	for _, n := range attrBits {
		if set&n.bit != 0 {
			have = append(have, prefix+n.name)
		}
	}
	if clear&unix.MOUNT_ATTR__ATIME == unix.MOUNT_ATTR__ATIME && set&unix.MOUNT_ATTR__ATIME == 0 {
		have = append(have, prefix+"relatime")
	}
	for _, n := range attrBits {
		if clear&^unix.MOUNT_ATTR__ATIME&n.bit != 0 {
			have = append(have, prefix+"no-"+n.name)
		}
	}
	return strings.Join(have, ",")
}

func propagationName(f uint64) string {
	r := ""
	if f&unix.MS_REC != 0 {
		r = "r"
	}
	switch f &^ unix.MS_REC {
	case unix.MS_SHARED:
		return r + "shared"
	case unix.MS_SLAVE:
		return r + "slave"
	case unix.MS_PRIVATE:
		return r + "private"
	case unix.MS_UNBINDABLE:
		return r + "unbindable"
	}
	return ""
}
