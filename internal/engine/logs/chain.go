package logs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// file is one file of a log.
type file struct {
	*os.File
	info  fs.FileInfo
	inode uint64 // of the plain file, which a compressed one's comment tells
	gz    bool   // compressed: unpack it before reading
	off   int64  // of the first line that was not read
}

// openNewer opens the log's files that are newer than cur, oldest first, or all of
// them if cur is nil or gone. It goes from the newest to the oldest: a rotation
// meanwhile moves files towards it, so it may see one twice but misses none.
func openNewer(path string, cur *file) (chain []*file, err error) {
	missing := 0
	for i := 0; missing < 2; i++ { // one name is free while files are being renamed
		name := path
		if i > 0 {
			name += "." + strconv.Itoa(i)
		}
		f, e := openFile(name, i > 0)
		if errors.Is(e, fs.ErrNotExist) {
			missing++
			continue
		}
		if e != nil {
			closeAll(chain)
			return nil, fault.Internal("cannot read log: %w", e)
		}
		missing = 0
		if cur != nil && f.inode == cur.inode {
			f.Close()
			return chain, nil
		}
		if len(chain) > 0 && f.inode == chain[0].inode {
			f.Close()
			continue
		}
		chain = append([]*file{f}, chain...)
	}
	return chain, nil
}

// openFile opens one file of a log; a rotated one may be compressed, and then has .gz behind its name.
func openFile(name string, rotated bool) (*file, error) {
	f, err := os.Open(name)
	gz := false
	if errors.Is(err, fs.ErrNotExist) && rotated {
		f, err = os.Open(name + ".gz")
		gz = true
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	out := &file{File: f, info: info, gz: gz}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		out.inode = st.Ino
	}
	if gz {
		z, err := gzip.NewReader(f)
		if err != nil {
			f.Close()
			return nil, err
		}
		if n, err := strconv.ParseUint(z.Comment, 10, 64); err == nil {
			out.inode = n
		}
	}
	return out, nil
}

// unpack makes what a compressed file holds readable, in memory.
func (f *file) unpack() error {
	if !f.gz {
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	plain := os.NewFile(uintptr(fd), f.Name())
	if _, err := io.Copy(plain, z); err != nil {
		plain.Close()
		return err
	}
	f.File.Close()
	f.File, f.gz = plain, false
	return nil
}

func closeAll(chain []*file) {
	for _, f := range chain {
		f.Close()
	}
}

// seekTail sets where the last n entries of the chain begin and drops the files before.
func seekTail(chain []*file, n int) ([]*file, error) {
	for i := len(chain) - 1; i >= 0; i-- {
		off, found, err := lastLines(chain[i], n)
		if err != nil {
			return chain, fault.Internal("cannot read log: %w", err)
		}
		chain[i].off = off
		n -= found
		if n == 0 {
			closeAll(chain[:i])
			return chain[i:], nil
		}
	}
	return chain, nil
}

// lastLines finds the last n whole lines of f: the offset of the first of them, and how many there are.
func lastLines(f *file, n int) (off int64, found int, err error) {
	if err := f.unpack(); err != nil {
		return 0, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	const block = 64 << 10
	buf := make([]byte, block)
	newlines := 0
	for end := info.Size(); end > 0; {
		start := max(0, end-block)
		b := buf[:end-start]
		if m, err := f.ReadAt(b, start); err != nil && (err != io.EOF || m < len(b)) {
			if err == io.EOF { // cut back meanwhile
				end = start + int64(m)
				if m == 0 {
					continue
				}
				b = b[:m]
			} else {
				return 0, 0, err
			}
		}
		for {
			i := bytes.LastIndexByte(b, '\n')
			if i < 0 {
				break
			}
			if newlines == n { // the end of the line before
				return start + int64(i) + 1, n, nil
			}
			newlines++
			b = b[:i]
		}
		end = start
	}
	return 0, newlines, nil
}

// dropBefore removes the files whose last write is before t.
func dropBefore(chain []*file, t time.Time) []*file {
	for len(chain) > 1 && chain[0].info.ModTime().Before(t.Add(-time.Second)) {
		chain[0].Close()
		chain = chain[1:]
	}
	return chain
}
