package image

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"tare/internal/base/fault"
	"tare/internal/base/files"
)

// movesFile, beside index.json, has a line of JSON per move of a tag, oldest first.
const movesFile = "moves.jsonl"

// Bounds of what is kept: when the file has grown beyond movesSize bytes, the last movesKept of each name stay.
const (
	movesSize = 1 << 20
	movesKept = 100
)

// Move is one change of what a tag stands for.
type Move struct {
	Time   time.Time     `json:"time"`
	Name   string        `json:"name"`             // full
	Target digest.Digest `json:"target,omitempty"` // the manifest or index; "" when the name was taken away
	// Manifest is the one of the target that was chosen for this host.
	Manifest digest.Digest `json:"manifest,omitempty"`
	Image    digest.Digest `json:"image,omitempty"`
}

func (m Move) key() rootKey { return rootKey{m.Target, m.Manifest} }

// moves records what becomes of tags. It is used under Store.change, or before the store is shared.
type moves struct{ path string }

// between lists the tags that stand for something else in next, or are gone.
func between(old, next *state, now time.Time) []Move {
	var all []Move
	for full, n := range next.names {
		if was, ok := old.names[full]; n.tag() && (!ok || was.root != n.root) {
			all = append(all, Move{Time: now, Name: full, Target: n.root.target, Manifest: n.root.manifest, Image: next.roots[n.root].image})
		}
	}
	for full, n := range old.names {
		if _, ok := next.names[full]; n.tag() && !ok {
			all = append(all, Move{Time: now, Name: full})
		}
	}
	slices.SortFunc(all, func(a, b Move) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// add appends moves. It comes after index.json: a crash between them is mended by catchUp.
func (m moves) add(all []Move) error {
	if len(all) == 0 {
		return nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, one := range all {
		if err := enc.Encode(one); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(m.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b.Bytes()); err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && info.Size() > movesSize {
		return m.shorten()
	}
	return nil
}

// read returns all moves, oldest first. A line that a crash cut short is left out.
func (m moves) read() ([]Move, error) {
	f, err := os.Open(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Move
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var one Move
		if json.Unmarshal(lines.Bytes(), &one) == nil && one.Name != "" {
			all = append(all, one)
		}
	}
	return all, lines.Err()
}

func (m moves) shorten() error {
	all, err := m.read()
	if err != nil {
		return err
	}
	count := map[string]int{}
	var kept []Move
	for _, one := range slices.Backward(all) {
		if count[one.Name]++; count[one.Name] <= movesKept {
			kept = append(kept, one)
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, one := range slices.Backward(kept) {
		if err := enc.Encode(one); err != nil {
			return err
		}
	}
	return files.Write(m.path, b.Bytes(), 0o600, files.Fast)
}

// catchUp records what changed without being recorded: a crash came between, or the store is older than the file. It also ends a line that
// was cut short.
func (m moves) catchUp(st *state) error {
	if data, err := os.ReadFile(m.path); err == nil && len(data) > 0 && data[len(data)-1] != '\n' {
		if err := os.Truncate(m.path, int64(bytes.LastIndexByte(data, '\n')+1)); err != nil {
			return err
		}
	}
	all, err := m.read()
	if err != nil {
		return err
	}
	last := map[string]Move{}
	for _, one := range all {
		last[one.Name] = one
	}
	var missing []Move
	for _, full := range slices.Sorted(maps.Keys(st.names)) {
		if n := st.names[full]; n.tag() && last[full].key() != n.root {
			missing = append(missing, Move{Time: n.since, Name: full, Target: n.root.target, Manifest: n.root.manifest, Image: st.roots[n.root].image})
		}
	}
	for _, full := range slices.Sorted(maps.Keys(last)) {
		if _, ok := st.names[full]; !ok && last[full].Target != "" {
			missing = append(missing, Move{Time: time.Now(), Name: full})
		}
	}
	return m.add(missing)
}

// History is where a store's tags were, and how its images differ.
type History struct{ Store *Store }

// Get is the store's.
func (h History) Get(ref string) (*Image, error) { return h.Store.Get(ref) }

// Log lists the moves of a tag, newest first; NotFound if there never was such a tag.
func (h History) Log(name string) ([]Move, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fault.Invalid("invalid reference format: %q: %w", name, err)
	}
	tag, ok := reference.TagNameOnly(ref).(reference.NamedTagged)
	if !ok {
		return nil, fault.Invalid("%s is a digest: only tags move", name)
	}
	all, err := h.Store.catalog.moves.read()
	if err != nil {
		return nil, err
	}
	var found []Move
	for _, m := range slices.Backward(all) {
		if m.Name == tag.String() {
			found = append(found, m)
		}
	}
	if len(found) == 0 {
		return nil, fault.NotFound("No such image: %s", reference.FamiliarString(tag))
	}
	return found, nil
}

// Earlier finds what a tag stood for before what it stands for now, or with to (a target's digest or an image id, whole or its beginning) the last
// time that it stood for that. NotFound if there is no such move.
func (h History) Earlier(name, to string) (Move, error) {
	log, err := h.Log(name)
	if err != nil {
		return Move{}, err
	}
	now := log[0]
	for _, m := range log[1:] {
		switch {
		case m.Target == "", m.key() == now.key():
			continue
		case to == "", isPrefix(m.Target, to), isPrefix(m.Image, to):
			return m, nil
		}
	}
	if to != "" {
		return Move{}, fault.NotFound("%s never stood for %s", name, to)
	}
	return Move{}, fault.NotFound("%s has not moved: there is nothing to roll back to", name)
}

func isPrefix(d digest.Digest, s string) bool {
	return d.Validate() == nil && (strings.HasPrefix(d.String(), s) || strings.HasPrefix(d.Encoded(), s))
}

// Rollback points a tag to what an earlier move gave it; NotFound if that image is not in the store any more. The rollback is a move, too.
func (h History) Rollback(name string, to Move) (*Image, error) {
	s := h.Store
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fault.Invalid("invalid reference format: %q: %w", name, err)
	}
	tag, ok := reference.TagNameOnly(ref).(reference.NamedTagged)
	if !ok {
		return nil, fault.Invalid("%s is a digest: only tags move", name)
	}
	s.change.Lock()
	defer s.change.Unlock()
	err = s.catalog.update(func(next *state) error {
		if next.roots[to.key()] == nil {
			return fault.NotFound("image %s, which %s was before, is not here any more: pull %s@%s",
				to.Image, reference.FamiliarString(tag), reference.FamiliarName(tag), to.Target)
		}
		return next.point(tag, to.key())
	})
	if err != nil {
		return nil, err
	}
	img := s.catalog.now().images[to.Image]
	s.Announce("tag", img, reference.FamiliarString(tag))
	return img, nil
}
