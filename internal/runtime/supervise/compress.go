package supervise

import (
	"compress/gzip"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Rotated logs are compressed by a child, one at a time for each log, so that neither the loop nor the
// supervisor's memory has to do with it. Path.N becomes Path.N.gz; its comment is the inode of Path.N, by which a
// reader that has that open knows it again.

// compression is the errand of compressing one rotated file.
type compression struct {
	Path  string `json:"path"` // of the log
	Files int    `json:"files"`
	Inode uint64 `json:"inode"` // of what is compressed, which may be renamed meanwhile
}

func (c *compression) temp() string { return c.Path + ".gz.tmp" }

// compressRotated begins to compress the oldest rotated file of a log that is not compressed, if no other is under way.
func (s runner) compressRotated(path string, files int) {
	for _, e := range s.errands {
		if e.compression != nil && e.compression.Path == path {
			return // its end asks again
		}
	}
	for i := files - 1; i >= 1; i-- {
		in, err := os.OpenFile(path+"."+strconv.Itoa(i), os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		err = s.compress(&compression{Path: path, Files: files, Inode: inodeOf(int(in.Fd()))}, in)
		in.Close()
		if err != nil {
			complain("cannot compress log %s: %v", in.Name(), err)
		}
		return
	}
}

func (s runner) compress(c *compression, in *os.File) error {
	out, err := os.OpenFile(c.temp(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	defer out.Close()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"tare-run", "supervise", "--compress"}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: []uintptr{in.Fd(), out.Fd(), 2},
	})
	if err != nil {
		return err
	}
	s.errands[pid] = &errand{compression: c}
	return nil
}

// ended puts the compressed file into the place of the other, wherever that is by now.
func (c *compression) ended(s *supervisor, status unix.WaitStatus) {
	if !status.Exited() || status.ExitStatus() != 0 {
		os.Remove(c.temp())
		complain("cannot compress a rotated file of log %s: %v", c.Path, status)
		return
	}
	for i := 1; i < c.Files; i++ {
		name := c.Path + "." + strconv.Itoa(i)
		var st unix.Stat_t
		if unix.Lstat(name, &st) != nil || st.Ino != c.Inode {
			continue
		}
		if err := os.Rename(c.temp(), name+".gz"); err != nil {
			complain("cannot compress log %s: %v", name, err)
			return
		}
		os.Remove(name)
		runner{s}.compressRotated(c.Path, c.Files)
		return
	}
	os.Remove(c.temp()) // it was rotated away meanwhile
	runner{s}.compressRotated(c.Path, c.Files)
}

// compressStdin is the child.
func compressStdin() int {
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	var st unix.Stat_t
	if err := unix.Fstat(0, &st); err != nil {
		return 1
	}
	z := gzip.NewWriter(os.Stdout)
	z.Comment = utoa(st.Ino)
	_, err := io.Copy(z, os.Stdin)
	if err == nil {
		err = z.Close()
	}
	if err == nil { // readers go by when the file was last written to
		times := []unix.Timespec{st.Mtim, st.Mtim}
		err = unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/1", times, 0)
	}
	if err != nil {
		complain("%v", err)
		return 1
	}
	return 0
}
