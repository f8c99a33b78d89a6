package rootfs

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/moby/sys/user"

	"tare/internal/base/fault"
)

// dbLimit is the largest passwd or group file that is read, in bytes.
const dbLimit = 4 << 20

// User is what a user[:group] word means in a tree.
type User struct {
	UID, GID int
	Groups   []int // supplementary
	Home     string
}

// User looks a user[:group] word up in the tree's /etc/passwd and /etc/group, as USER means it; "" is root.
func (r *Root) User(word string) (User, error) {
	passwd, err := r.ReadFile("/etc/passwd", dbLimit)
	if err != nil {
		return User{}, err
	}
	group, err := r.ReadFile("/etc/group", dbLimit)
	if err != nil {
		return User{}, err
	}
	u, err := user.GetExecUser(word, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return User{}, fault.Invalid("%w", err)
	}
	return User{UID: u.Uid, GID: u.Gid, Groups: u.Sgids, Home: u.Home}, nil
}

// Owner looks a user[:group] word up as --chown means it: a bare number is user and group.
func (r *Root) Owner(word string) (uid, gid int, err error) {
	if n, err := strconv.ParseUint(word, 10, 31); err == nil {
		return int(n), int(n), nil
	}
	if u, g, ok := strings.Cut(word, ":"); ok {
		un, err1 := strconv.ParseUint(u, 10, 31)
		gn, err2 := strconv.ParseUint(g, 10, 31)
		if err1 == nil && err2 == nil {
			return int(un), int(gn), nil // needs no passwd file
		}
	}
	u, err := r.User(word)
	return u.UID, u.GID, err
}
