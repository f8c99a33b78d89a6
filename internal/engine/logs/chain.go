package logs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"tare/internal/base/fault"
)

// file is one file of a log.
type file struct {
	*os.File
	info fs.FileInfo
	off  int64 // of the first line that was not read
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
		f, e := os.Open(name)
		if errors.Is(e, fs.ErrNotExist) {
			missing++
			continue
		}
		var info fs.FileInfo
		if e == nil {
			if info, e = f.Stat(); e != nil {
				f.Close()
			}
		}
		if e != nil {
			closeAll(chain)
			return nil, fault.Internal("cannot read log: %w", e)
		}
		missing = 0
		if cur != nil && os.SameFile(info, cur.info) {
			f.Close()
			return chain, nil
		}
		if len(chain) > 0 && os.SameFile(info, chain[0].info) {
			f.Close()
			continue
		}
		chain = append([]*file{{File: f, info: info}}, chain...)
	}
	return chain, nil
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
