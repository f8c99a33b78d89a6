package image

import (
	"slices"

	"github.com/distribution/reference"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
)

// Removed is one line of what a removal did.
type Removed struct {
	Untagged string // familiar name
	Deleted  string // image id or diffID with "sha256:"
}

// Remove removes a name, or with an id the whole image, by Docker's rules: an id with names in several repositories, or that a
// stopped container uses, wants force; what a running container uses is not removed at all (Conflict). An image that somebody
// holds loses its names and is not listed any more, but keeps its data until the last hold ends. There are no
// parent images, so pruneParents has nothing to do.
func (s *Store) Remove(ref string, force, pruneParents bool) ([]Removed, error) {
	s.change.Lock()
	defer s.change.Unlock()
	return remove(s, ref, force)
}

// remove is Remove; the caller holds s.change.
func remove(s *Store, ref string, force bool) ([]Removed, error) {
	st := s.catalog.now()
	img, byID, err := st.find(ref)
	if err != nil {
		return nil, err
	}
	if _, ok := st.images[img.ID]; !ok {
		return nil, fault.NotFound("No such image: %s", ref)
	}
	r := &removal{s: s, img: img, st: st, force: force}
	if byID {
		return r.byID()
	}
	return r.byName(ref)
}

// removal decides what goes, then does it in one change.
type removal struct {
	s     *Store
	st    *state
	img   *Image
	force bool
	done  []Removed
}

// refs are the full names of the image, tags and digests.
func (r *removal) refs() []string {
	var all []string
	for full, n := range r.st.names {
		if r.st.roots[n.root].image == r.img.ID {
			all = append(all, full)
		}
	}
	slices.Sort(all)
	return all
}

// single tells whether names are at most one tag, with digests of its repository, or no tag and digests of one repository.
func (r *removal) single(refs []string) bool {
	tags, repos := 0, map[string]bool{}
	for _, full := range refs {
		n := r.st.names[full]
		repos[n.ref.Name()] = true
		if n.tag() {
			tags++
		}
	}
	return tags <= 1 && len(repos) <= 1
}

func (r *removal) byName(ref string) ([]Removed, error) {
	refs := r.refs()
	running, other := r.s.holds.users(r.img.ID)
	if users := append(running, other...); !r.force && r.single(refs) && len(users) > 0 {
		return nil, fault.Conflict("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
			ref, ids.Short(users[0]), ids.Short(r.img.ID.String()))
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fault.Invalid("%w", err)
	}
	full := nameKey(named)
	gone := []string{full}
	if r.st.names[full].tag() {
		gone = append(gone, r.orphans(full, refs)...)
	}
	if left := len(refs) - len(gone); left > 0 {
		return r.untag(gone)
	}
	// The last name goes. Whoever still uses the image keeps it, without a name.
	if len(running) > 0 || len(other) > 0 && !r.force {
		return r.untag(gone)
	}
	return r.delete(gone)
}

// orphans are the digests of a tag's repository, if it is the last tag of the image there.
func (r *removal) orphans(tag string, refs []string) []string {
	repo := r.st.names[tag].ref.Name()
	var digests []string
	for _, full := range refs {
		n := r.st.names[full]
		if full == tag || n.ref.Name() != repo {
			continue
		}
		if n.tag() {
			return nil
		}
		digests = append(digests, full)
	}
	return digests
}

func (r *removal) byID() ([]Removed, error) {
	refs := r.refs()
	running, other := r.s.holds.users(r.img.ID)
	id := ids.Short(r.img.ID.String())
	switch {
	case len(running) > 0:
		return nil, fault.Conflict("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", id, ids.Short(running[0]))
	case r.force:
	case !r.single(refs):
		return nil, fault.Conflict("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", id)
	case len(other) > 0:
		return nil, fault.Conflict("conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", id, ids.Short(other[0]))
	}
	return r.delete(refs)
}

// untag takes names away.
func (r *removal) untag(refs []string) ([]Removed, error) {
	err := r.s.catalog.update(func(next *state) error {
		for _, full := range refs {
			delete(next.names, full)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, full := range refs {
		r.done = append(r.done, Removed{Untagged: reference.FamiliarString(r.st.names[full].ref)})
		r.s.Announce("untag", r.img, r.img.ID.String())
	}
	return r.done, nil
}

// delete takes names and image away, and the data that nothing else needs.
func (r *removal) delete(refs []string) ([]Removed, error) {
	held := len(r.s.Holders(r.img.ID)) > 0
	var gone []*root
	err := r.s.catalog.update(func(next *state) error {
		for _, full := range refs {
			delete(next.names, full)
		}
		for k, root := range next.roots {
			if root.image != r.img.ID {
				continue
			}
			if held {
				kept := *root
				kept.removed = true
				next.roots[k] = &kept
				continue
			}
			gone = append(gone, root)
			delete(next.roots, k)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, full := range refs {
		r.done = append(r.done, Removed{Untagged: reference.FamiliarString(r.st.names[full].ref)})
		r.s.Announce("untag", r.img, r.img.ID.String())
	}
	r.done = append(r.done, Removed{Deleted: r.img.ID.String()})
	layers, _, err := r.s.garbage.free(gone)
	for _, d := range layers {
		r.done = append(r.done, Removed{Deleted: d.String()})
	}
	r.s.Announce("delete", r.img, r.img.ID.String())
	return r.done, err
}
