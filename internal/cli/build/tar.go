package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"tare/internal/base/ids"
)

// packContext streams a folder as a tar, without what the ignore file names.
// With inline the Dockerfile is that text, under a name that can't be in the context; the name in use is returned.
func packContext(dir, dockerfile string, inline []byte) (io.ReadCloser, string, error) {
	patterns, err := ignorePatterns(dir, dockerfile, true)
	if err != nil {
		return nil, "", err
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, "", fmt.Errorf("unable to prepare context: .dockerignore: %w", err)
	}
	if inline != nil {
		dockerfile = ".dockerfile." + ids.Short(ids.New())
	}
	pr, pw := io.Pipe()
	go func() {
		w := bufio.NewWriterSize(pw, 1<<20)
		err := writeContext(w, dir, dockerfile, inline, matcher)
		if err == nil {
			err = w.Flush()
		}
		pw.CloseWithError(err)
	}()
	return pr, dockerfile, nil
}

// ignorePatterns reads <Dockerfile>.dockerignore or .dockerignore. With keep, the Dockerfile and the ignore file are never ignored:
// an engine that gets a tar looks for them there.
func ignorePatterns(dir, dockerfile string, keep bool) ([]string, error) {
	names := []string{".dockerignore"}
	if dockerfile != "" {
		names = []string{dockerfile + ".dockerignore", ".dockerignore"}
	}
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		patterns, err := ignorefile.ReadAll(f)
		if err != nil {
			return nil, fmt.Errorf("unable to prepare context: %s: %w", name, err)
		}
		if keep && len(patterns) > 0 {
			patterns = append(patterns, "!"+name)
			if dockerfile != "" {
				patterns = append(patterns, "!"+dockerfile)
			}
		}
		return patterns, nil
	}
	return nil, nil
}

func writeContext(w io.Writer, dir, dockerfile string, inline []byte, ignore *patternmatcher.PatternMatcher) error {
	tw := tar.NewWriter(w)
	buf := make([]byte, 256<<10)
	if inline != nil {
		if err := tw.WriteHeader(&tar.Header{Name: dockerfile, Mode: 0o600, Size: int64(len(inline)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := tw.Write(inline); err != nil {
			return err
		}
	}
	parents := []patternmatcher.MatchInfo{}
	depths := []string{}
	links := map[fileID]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || rel == "." {
			return err
		}
		for len(depths) > 0 && !strings.HasPrefix(rel, depths[len(depths)-1]+string(filepath.Separator)) {
			depths, parents = depths[:len(depths)-1], parents[:len(parents)-1]
		}
		var parent patternmatcher.MatchInfo
		if len(parents) > 0 {
			parent = parents[len(parents)-1]
		}
		skip, info, err := ignore.MatchesUsingParentResults(rel, parent)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skip && !ignore.Exclusions() {
				return filepath.SkipDir
			}
			depths, parents = append(depths, rel), append(parents, info)
		}
		if skip {
			return nil
		}
		return writeEntry(tw, p, filepath.ToSlash(rel), d, links, buf)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, p, name string, d fs.DirEntry, links map[fileID]string, buf []byte) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket != 0 {
		return nil
	}
	var link string
	if info.Mode()&os.ModeSymlink != 0 {
		if link, err = os.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Format = name, tar.FormatPAX
	h.Uname, h.Gname = "", ""
	// Whole seconds, as Docker sends them, and no other times: every file would have a second header for them.
	h.ModTime, h.AccessTime, h.ChangeTime = h.ModTime.Truncate(time.Second), time.Time{}, time.Time{}
	if d.IsDir() {
		h.Name += "/"
	}
	if first, ok := linkedTo(info, name, links); ok {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg || h.Size == 0 {
		return nil
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{tw}, io.LimitReader(f, h.Size), buf)
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s became shorter while it was read", p)
	}
	return err
}

// fromStdin takes a tar (compressed or not) as the context, or a plain Dockerfile as a context of one file.
func fromStdin(r io.Reader, dockerfile string) (io.ReadCloser, string, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, "", err
	}
	if isArchive(head) {
		return io.NopCloser(br), dockerfile, nil
	}
	text, err := io.ReadAll(br)
	if err != nil {
		return nil, "", err
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	if err := tw.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o600, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
		return nil, "", err
	}
	if _, err := tw.Write(text); err != nil {
		return nil, "", err
	}
	return io.NopCloser(&buf), "Dockerfile", tw.Close()
}

// isArchive knows tar and the compressions that may wrap it by their first bytes.
func isArchive(head []byte) bool {
	for _, magic := range [][]byte{{0x1f, 0x8b}, {'B', 'Z', 'h'}, {0xfd, '7', 'z', 'X', 'Z', 0}, {0x28, 0xb5, 0x2f, 0xfd}} {
		if bytes.HasPrefix(head, magic) {
			return true
		}
	}
	return len(head) >= 262 && string(head[257:262]) == "ustar"
}
