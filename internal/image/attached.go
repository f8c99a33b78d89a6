package image

import (
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

// Annotations of an index's entries that describe another entry (BuildKit's attestation storage).
const (
	annotationReferenceType   = "vnd.docker.reference.type"
	annotationReferenceDigest = "vnd.docker.reference.digest"
)

// maxReferrers bounds how many manifests may be about one image.
const maxReferrers = 256

// Attached is a manifest that says something of an image: an attestation in its index, or a referrer.
type Attached struct {
	Manifest ocispec.Descriptor
	Subject  digest.Digest // what it is about
	Referrer bool          // by its subject field; else an entry of the image's index
	Blobs    []ocispec.Descriptor
}

// Attachments are what a store has about its images.
type Attachments struct{ Store *Store }

// Attach records a referrer of subject whose manifest and blobs are stored. Subject has to be an image's target or manifest. A second time does nothing.
func (a Attachments) Attach(subject digest.Digest, referrer ocispec.Descriptor) error {
	s := a.Store
	s.change.Lock()
	defer s.change.Unlock()
	now := s.catalog.now()
	if slices.ContainsFunc(now.referrers[subject], func(d ocispec.Descriptor) bool { return d.Digest == referrer.Digest }) {
		return nil
	}
	if len(now.referrers[subject]) >= maxReferrers {
		return fault.Invalid("manifest %s has more than %d referrers", subject, maxReferrers)
	}
	if _, err := s.parts.contents(referrer); err != nil {
		return err
	}
	return s.catalog.update(func(next *state) error {
		next.referrers[subject] = append(slices.Clone(next.referrers[subject]), clean(referrer))
		for k, r := range next.roots {
			if k.target == subject || k.manifest == subject {
				again := *r
				again.attached = s.parts.attached(r, next.referrers)
				next.roots[k] = &again
			}
		}
		return nil
	})
}

// Attached lists what the store has about an image.
func (a Attachments) Attached(img *Image) []Attached {
	s := a.Store
	r := s.catalog.now().roots[rootKey{img.Target.Digest, img.Manifest.Digest}]
	if r == nil {
		return nil
	}
	return s.parts.about(r, s.catalog.now().referrers)
}

// attached is about in one list.
func (p parts) attached(r *root, referrers map[digest.Digest][]ocispec.Descriptor) []ocispec.Descriptor {
	var all []ocispec.Descriptor
	for _, a := range p.about(r, referrers) {
		all = append(append(all, a.Manifest), a.Blobs...)
	}
	return all
}

// about finds a root's attestations and referrers. Those that are not here, or not whole, are left out.
func (p parts) about(r *root, referrers map[digest.Digest][]ocispec.Descriptor) []Attached {
	var all []Attached
	add := func(d ocispec.Descriptor, subject digest.Digest, referrer bool) {
		if blobs, err := p.contents(d); err == nil {
			all = append(all, Attached{Manifest: clean(d), Subject: subject, Referrer: referrer, Blobs: blobs})
		}
	}
	if isIndex(r.target.MediaType) {
		var idx ocispec.Index
		if p.readJSON(r.target.Digest, &idx) == nil {
			for _, d := range idx.Manifests {
				if d.Annotations[annotationReferenceType] != "" && d.Annotations[annotationReferenceDigest] == r.manifest.Digest.String() {
					add(d, r.manifest.Digest, false)
				}
			}
		}
	}
	for _, d := range referrers[r.target.Digest] {
		add(d, r.target.Digest, true)
	}
	if r.manifest.Digest != r.target.Digest {
		for _, d := range referrers[r.manifest.Digest] {
			add(d, r.manifest.Digest, true)
		}
	}
	return all
}

// contents are the blobs of any manifest, config first; an error if one of them is missing.
func (p parts) contents(d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if _, err := p.blobs.Size(d.Digest); err != nil {
		return nil, err
	}
	var m struct {
		Config *ocispec.Descriptor  `json:"config"`
		Layers []ocispec.Descriptor `json:"layers"`
	}
	data, err := p.blobs.Bytes(d.Digest)
	if err != nil {
		return nil, err
	}
	if err := Dense(data); err != nil {
		return nil, fault.Invalid("manifest %s: %w", d.Digest, err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fault.Invalid("cannot read manifest %s: %w", d.Digest, err)
	}
	var all []ocispec.Descriptor
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	all = append(all, m.Layers...)
	for _, b := range all {
		if _, err := p.blobs.Size(b.Digest); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Statement reads a blob of what is attached to an image.
func (a Attachments) Statement(d ocispec.Descriptor) ([]byte, error) {
	return a.Store.Blobs.Bytes(d.Digest)
}
