package plan

import (
	"strings"

	"golang.org/x/sys/unix"
)

// options are a mount's fstab-style options, sorted by what must be done with them.
type options struct {
	flags            uint64 // MS_… to set
	set, clear       uint64 // MOUNT_ATTR_…, for a bind
	recSet, recClear uint64
	prop             uint64
	data             []string // what the file system itself is to read

	copyUp        bool // tmpcopyup
	idmap, ridmap bool
}

type option struct {
	flag  uint64
	clear bool
	attr  uint64
}

var mountOptions = map[string]option{
	"acl": {unix.MS_POSIXACL, false, 0}, "noacl": {unix.MS_POSIXACL, true, 0},
	"remount": {unix.MS_REMOUNT, false, 0},
	"async":   {unix.MS_SYNCHRONOUS, true, 0}, "sync": {unix.MS_SYNCHRONOUS, false, 0},
	"atime": {unix.MS_NOATIME, true, unix.MOUNT_ATTR_NOATIME}, "noatime": {unix.MS_NOATIME, false, unix.MOUNT_ATTR_NOATIME},
	"bind": {unix.MS_BIND, false, 0}, "rbind": {unix.MS_BIND | unix.MS_REC, false, 0},
	"defaults": {}, "silent": {unix.MS_SILENT, false, 0}, "loud": {unix.MS_SILENT, true, 0},
	"dev": {unix.MS_NODEV, true, unix.MOUNT_ATTR_NODEV}, "nodev": {unix.MS_NODEV, false, unix.MOUNT_ATTR_NODEV},
	"diratime": {unix.MS_NODIRATIME, true, unix.MOUNT_ATTR_NODIRATIME}, "nodiratime": {unix.MS_NODIRATIME, false, unix.MOUNT_ATTR_NODIRATIME},
	"dirsync": {unix.MS_DIRSYNC, false, 0},
	"exec":    {unix.MS_NOEXEC, true, unix.MOUNT_ATTR_NOEXEC}, "noexec": {unix.MS_NOEXEC, false, unix.MOUNT_ATTR_NOEXEC},
	"iversion": {unix.MS_I_VERSION, false, 0}, "noiversion": {unix.MS_I_VERSION, true, 0},
	"lazytime": {unix.MS_LAZYTIME, false, 0}, "nolazytime": {unix.MS_LAZYTIME, true, 0},
	"mand": {unix.MS_MANDLOCK, false, 0}, "nomand": {unix.MS_MANDLOCK, true, 0},
	"relatime": {unix.MS_RELATIME, false, unix.MOUNT_ATTR_RELATIME}, "norelatime": {unix.MS_RELATIME, true, 0},
	"strictatime": {unix.MS_STRICTATIME, false, unix.MOUNT_ATTR_STRICTATIME}, "nostrictatime": {unix.MS_STRICTATIME, true, unix.MOUNT_ATTR_STRICTATIME},
	"ro": {unix.MS_RDONLY, false, unix.MOUNT_ATTR_RDONLY}, "rw": {unix.MS_RDONLY, true, unix.MOUNT_ATTR_RDONLY},
	"suid": {unix.MS_NOSUID, true, unix.MOUNT_ATTR_NOSUID}, "nosuid": {unix.MS_NOSUID, false, unix.MOUNT_ATTR_NOSUID},
	"symfollow": {unix.MS_NOSYMFOLLOW, true, unix.MOUNT_ATTR_NOSYMFOLLOW}, "nosymfollow": {unix.MS_NOSYMFOLLOW, false, unix.MOUNT_ATTR_NOSYMFOLLOW},
}

// recursive options have an r in front of these.
var recursiveOptions = map[string]bool{
	"ro": true, "rw": true, "suid": true, "nosuid": true, "dev": true, "nodev": true, "exec": true, "noexec": true,
	"atime": true, "noatime": true, "diratime": true, "nodiratime": true, "relatime": true, "strictatime": true,
	"nostrictatime": true, "symfollow": true, "nosymfollow": true,
}

var propagation = map[string]uint64{
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
	"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

func parseOptions(opts []string) options {
	var o options
	for _, word := range opts {
		if f, ok := propagation[word]; ok {
			o.prop = f
			continue
		}
		if m, ok := mountOptions[word]; ok {
			if m.clear {
				o.flags &^= m.flag
			} else {
				o.flags |= m.flag
			}
			change(&o.set, &o.clear, m)
			continue
		}
		if plain, ok := strings.CutPrefix(word, "r"); ok && recursiveOptions[plain] {
			change(&o.recSet, &o.recClear, mountOptions[plain])
			continue
		}
		switch word {
		case "tmpcopyup":
			o.copyUp = true
			continue
		case "idmap":
			o.idmap = true
			continue
		case "ridmap":
			o.idmap, o.ridmap = true, true
			continue
		}
		o.data = append(o.data, word)
	}
	return o
}

// atime is three-valued: setting one of its values clears the others.
func change(set, clear *uint64, m option) {
	if m.attr == 0 && m.flag != unix.MS_RELATIME {
		return
	}
	atime := m.attr == unix.MOUNT_ATTR_NOATIME || m.attr == unix.MOUNT_ATTR_STRICTATIME || m.flag == unix.MS_RELATIME
	if atime {
		*set &^= unix.MOUNT_ATTR__ATIME
		*clear |= unix.MOUNT_ATTR__ATIME
		if !m.clear {
			*set |= m.attr
		}
		return
	}
	if m.clear {
		*set &^= m.attr
		*clear |= m.attr
	} else {
		*set |= m.attr
		*clear &^= m.attr
	}
}
