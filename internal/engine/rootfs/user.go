package rootfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strconv"

	"github.com/moby/sys/user"

	"tare/internal/base/fault"
)

// User is a user of a container by number.
type User struct {
	UID, GID uint32
	Groups   []uint32 // all groups, GID first: a process without its own group among them may read what is closed to that group
	Home     string
}

// Reader reads a file of a container: ReadFile of a View, or of Layers.
type Reader func(name string) ([]byte, error)

// LookUp resolves Docker's user syntax (user, uid, user:group, uid:gid, "") and further groups by the container's own
// /etc/passwd and /etc/group, which may be missing.
func LookUp(read Reader, name string, groups []string) (User, error) {
	passwd, err := optional(read, "/etc/passwd")
	if err != nil {
		return User{}, err
	}
	group, err := optional(read, "/etc/group")
	if err != nil {
		return User{}, err
	}
	u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return User{}, fault.Invalid("%w", err)
	}
	out := User{UID: uint32(u.Uid), GID: uint32(u.Gid), Home: u.Home}
	extra := append([]int{u.Gid}, u.Sgids...)
	if len(groups) > 0 {
		var source io.Reader
		if len(group) > 0 {
			source = bytes.NewReader(group)
		} else if !slices.ContainsFunc(groups, func(g string) bool { _, err := strconv.Atoi(g); return err != nil }) {
			source = bytes.NewReader(nil)
		}
		more, err := user.GetAdditionalGroups(groups, source)
		if err != nil {
			return User{}, fault.Invalid("Unable to find group in --group-add: %w", err)
		}
		slices.Sort(more) // they come in an order of chance
		extra = append(extra, more...)
	}
	for _, g := range extra {
		if !slices.Contains(out.Groups, uint32(g)) {
			out.Groups = append(out.Groups, uint32(g))
		}
	}
	return out, nil
}

func optional(read Reader, name string) ([]byte, error) {
	data, err := read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
