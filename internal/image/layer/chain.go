package layer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/files"
)

// Chain returns the overlay lower folders for layers on top of each other (diffIDs,
// bottom first), topmost first and never none: NotFound if a layer is missing. Where a folder that is only implied in
// one layer would hide the mode or owner that a lower layer gives it, a generated fix comes first.
func (s *Store) Chain(diffIDs []digest.Digest) ([]string, error) {
	if len(diffIDs) == 0 {
		return []string{filepath.Join(s.dir, emptyDir)}, nil
	}
	diffIDs = once(diffIDs)
	key := chainKey(diffIDs)
	s.mu.Lock()
	dirs, ok := s.chains[key]
	s.mu.Unlock()
	if ok {
		return slices.Clone(dirs), nil
	}
	dirs, err := s.chain(key, diffIDs)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range diffIDs {
		if _, ok := s.known[d]; !ok {
			return nil, fault.NotFound("layer %s not found", d)
		}
	}
	s.chains[key] = dirs
	return slices.Clone(dirs), nil
}

// once keeps the topmost of a layer that an image has several times, such as an empty one: what it shows hides all that it would show further
// down, and overlayfs takes a folder once only.
func once(diffIDs []digest.Digest) []digest.Digest {
	seen := make(map[digest.Digest]bool, len(diffIDs))
	kept := make([]digest.Digest, 0, len(diffIDs))
	for _, d := range slices.Backward(diffIDs) {
		if !seen[d] {
			seen[d] = true
			kept = append(kept, d)
		}
	}
	slices.Reverse(kept)
	return kept
}

func chainKey(diffIDs []digest.Digest) string {
	h := sha256.New()
	for _, d := range diffIDs {
		h.Write([]byte(d))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (s *Store) chain(key string, diffIDs []digest.Digest) ([]string, error) {
	c := &chain{}
	for _, d := range diffIDs {
		r, ok := s.get(d)
		if !ok {
			return nil, fault.NotFound("layer %s not found", d)
		}
		implied := map[string]bool{}
		for _, p := range r.Implied {
			implied[p] = true
		}
		c.dirs = append(c.dirs, s.Dir(d))
		c.implied = append(c.implied, implied)
	}
	lower := slices.Clone(c.dirs)
	slices.Reverse(lower)
	fixes, err := c.fixes()
	if err != nil {
		return nil, err
	}
	if len(fixes) == 0 {
		return lower, nil
	}
	fix := filepath.Join(s.dir, fixDir, key)
	if err := s.makeFix(fix, diffIDs, fixes); err != nil {
		return nil, err
	}
	return append([]string{filepath.Join(fix, "fs")}, lower...), nil
}

// chain finds what implied folders hide. Layers are bottom first.
type chain struct {
	dirs    []string
	implied []map[string]bool
}

// attrs are what a folder's own entry gives it.
type attrs struct {
	mode, uid, gid uint32
	mtime          unix.Timespec
	xattrs         map[string]string
}

func (a attrs) plain() bool {
	return a.mode == 0o755 && a.uid == 0 && a.gid == 0 && len(a.xattrs) == 0
}

// fixes maps the folders that need it, and all folders above them, to the attributes they have in the image.
func (c *chain) fixes() (map[string]attrs, error) {
	found := map[string]attrs{}
	seen := map[string]bool{}
	for k := len(c.dirs) - 1; k > 0; k-- {
		for p := range c.implied[k] {
			if seen[p] || c.definedAbove(k, p) {
				continue
			}
			seen[p] = true
			a, ok, err := c.explicit(k, p)
			if err != nil {
				return nil, err
			}
			if ok && !a.plain() {
				found[p] = a
			}
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	for p := range found {
		for p != "" {
			p, _ = split(p)
			if _, ok := found[p]; ok {
				continue
			}
			a, err := c.effective(p)
			if err != nil {
				return nil, err
			}
			found[p] = a
		}
	}
	return found, nil
}

// definedAbove tells whether a layer above k has the path, and so decides.
func (c *chain) definedAbove(k int, p string) bool {
	for j := k + 1; j < len(c.dirs); j++ {
		if c.covers(j, p) {
			return true
		}
	}
	return false
}

// covers tells whether layer j has the path or something that hides it in the layers below.
func (c *chain) covers(j int, p string) bool {
	var st unix.Stat_t
	at := c.dirs[j]
	for part := range strings.SplitSeq(p, "/") {
		if at != c.dirs[j] && isOpaque(at) {
			return true
		}
		if part == "" {
			continue
		}
		at = filepath.Join(at, part)
		if err := unix.Lstat(at, &st); err != nil {
			return false
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return true
		}
	}
	return true
}

func isOpaque(dir string) bool {
	var b [1]byte
	n, err := unix.Lgetxattr(dir, opaqueXattr, b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

// explicit looks below layer k for the entry that gives an implied folder its attributes.
func (c *chain) explicit(k int, p string) (attrs, bool, error) {
	for j := k; j >= 0; j-- {
		if hidden := c.opaqueAt(j, p); hidden && j == k {
			return attrs{}, false, nil
		}
		if j == k {
			continue
		}
		a, isDir, err := folderAttrs(c.dirs[j], p)
		if err != nil {
			return attrs{}, false, err
		}
		if isDir && !c.implied[j][p] {
			return a, true, nil
		}
		if !isDir && c.covers(j, p) || c.opaqueAt(j, p) {
			return attrs{}, false, nil
		}
	}
	return attrs{}, false, nil
}

// opaqueAt tells whether layer j hides the path in the layers below, by a mark on it or on a folder above it.
func (c *chain) opaqueAt(j int, p string) bool {
	at := c.dirs[j]
	for part := range strings.SplitSeq(p, "/") {
		if part == "" {
			continue
		}
		at = filepath.Join(at, part)
		if isOpaque(at) {
			return true
		}
	}
	return false
}

// effective is what the image shows for a folder that needs no fix.
func (c *chain) effective(p string) (attrs, error) {
	for j := len(c.dirs) - 1; j >= 0; j-- {
		a, isDir, err := folderAttrs(c.dirs[j], p)
		if err != nil {
			return attrs{}, err
		}
		if isDir {
			return a, nil
		}
	}
	return attrs{mode: 0o755}, nil
}

func folderAttrs(layer, p string) (attrs, bool, error) {
	var st unix.Stat_t
	at := layer
	for part := range strings.SplitSeq(p, "/") {
		at = filepath.Join(at, part)
		err := unix.Lstat(at, &st)
		if errors.Is(err, unix.ENOENT) {
			return attrs{}, false, nil
		}
		if err != nil {
			return attrs{}, false, &os.PathError{Op: "lstat", Path: at, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return attrs{}, false, nil
		}
	}
	xs, err := listXattrs(at)
	if err != nil {
		return attrs{}, false, &os.PathError{Op: "listxattr", Path: at, Err: err}
	}
	return attrs{mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid, mtime: st.Mtim, xattrs: xs}, true, nil
}

// fixRecord is fix.json: the chain a fix is for.
type fixRecord struct {
	DiffIDs []digest.Digest `json:"diffIDs"`
}

// makeFix writes the folders, and renames them into place unless they are there.
func (s *Store) makeFix(fix string, diffIDs []digest.Digest, fixes map[string]attrs) error {
	if _, err := os.Stat(fix); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(filepath.Join(s.dir, fixDir), files.TempPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	root, err := makeRoot(tmp)
	if err != nil {
		return err
	}
	root.Close()
	paths := make([]string, 0, len(fixes))
	for p := range fixes {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	for _, p := range paths {
		if err := os.MkdirAll(path.Join(tmp, "fs", p), 0o755); err != nil {
			return err
		}
	}
	for _, p := range slices.Backward(paths) {
		if err := fixes[p].apply(path.Join(tmp, "fs", p)); err != nil {
			return err
		}
	}
	if err := files.WriteJSON(filepath.Join(tmp, "fix.json"), fixRecord{diffIDs}, files.Fast); err != nil {
		return err
	}
	err = os.Rename(tmp, fix)
	if errors.Is(err, os.ErrExist) {
		return nil // another caller was faster
	}
	return err
}

func (a attrs) apply(p string) error {
	if err := os.Lchown(p, int(a.uid), int(a.gid)); err != nil {
		return err
	}
	if err := unix.Chmod(p, a.mode); err != nil {
		return err
	}
	for k, v := range a.xattrs {
		if err := unix.Lsetxattr(p, k, []byte(v), 0); err != nil {
			return &os.PathError{Op: "setxattr " + k, Path: p, Err: err}
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{a.mtime, a.mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// SweepFixes removes the fixes of chains that have lost a layer.
func (s *Store) SweepFixes() error {
	dir := filepath.Join(s.dir, fixDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), files.TempPrefix) {
			continue
		}
		var r fixRecord
		err := files.ReadJSON(filepath.Join(dir, e.Name(), "fix.json"), &r)
		whole := err == nil
		for _, d := range r.DiffIDs {
			if _, ok := s.get(d); !ok {
				whole = false
			}
		}
		if !whole {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
