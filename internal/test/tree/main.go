// Command tree prints what a process sees of a folder: one line a file, with everything that a layer can carry. It runs inside
// containers of different engines, whose outputs are then compared.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	for _, root := range os.Args[1:] {
		first := map[uint64]string{} // of hard links
		err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			line, err := describe(path, first)
			fmt.Println(line)
			return err
		})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
}

func describe(path string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	b := fmt.Sprintf("%q mode %o owner %d:%d", path, st.Mode, st.Uid, st.Gid)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR { // a folder's size is the file system's affair
		b += fmt.Sprintf(" size %d", st.Size)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && time.Since(time.Unix(st.Mtim.Unix())).Abs() < 24*time.Hour {
		b += " time recent" // of a folder that no layer has an entry for
	} else {
		b += fmt.Sprintf(" time %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		b += fmt.Sprintf(" device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFLNK:
		to, err := os.Readlink(path)
		if err != nil {
			return b, err
		}
		b += fmt.Sprintf(" to %q", to)
	case unix.S_IFREG:
		if st.Nlink > 1 {
			if other, ok := first[st.Ino]; ok {
				b += fmt.Sprintf(" is %q", other)
			} else {
				first[st.Ino] = path
			}
		}
		sum, err := content(path)
		if err != nil {
			return b, err
		}
		b += " sha256 " + sum
	}
	names, err := attributes(path)
	if err != nil {
		return b, err
	}
	for _, n := range names {
		value := make([]byte, 64<<10)
		n, size := n, 0
		if size, err = unix.Lgetxattr(path, n, value); err != nil {
			return b, err
		}
		b += fmt.Sprintf(" %s=%x", n, value[:size])
	}
	return b, nil
}

func content(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// attributes lists the names of extended attributes, save those that the host puts on everything.
func attributes(path string) ([]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err == unix.ENOTSUP || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if s != "security.selinux" && !strings.HasPrefix(s, "trusted.") {
			names = append(names, s)
		}
	}
	sort.Strings(names)
	return names, nil
}
