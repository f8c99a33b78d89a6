package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/files"
	"tare/internal/hub/access"
	"tare/internal/hub/audit"
	"tare/internal/hub/pattern"
)

// manifestCall is a call of a manifest, by tag or digest.
type manifestCall struct{ *call }

// Docker's media types; those of the image-spec come from its package.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// manifest is what the hub reads of manifests and indexes.
type manifest struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Subject       *ocispec.Descriptor  `json:"subject"`
	Annotations   map[string]string    `json:"annotations"`
}

// record is what _manifests has of a manifest.
type record struct {
	ocispec.Descriptor
	Pushed time.Time `json:"pushed,omitzero"`
}

// blobs are the digests of config and layers.
func (m *manifest) blobs() []digest.Digest {
	var all []digest.Digest
	if m.Config != nil {
		all = append(all, m.Config.Digest)
	}
	for _, l := range m.Layers {
		all = append(all, l.Digest)
	}
	return all
}

func invalid(format string, args ...any) *refusal {
	return refuse(http.StatusBadRequest, "MANIFEST_INVALID", format, args...)
}

func manifestUnknown(arg string) *refusal {
	return refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown: %s", arg)
}

// tagged is the digest that a tag stands for; fs.ErrNotExist if there is no such tag.
func (s *shelf) tagged(name, tag string) (digest.Digest, error) {
	if !tagPattern.MatchString(tag) {
		return "", fs.ErrNotExist
	}
	data, err := s.readRecord(s.tagLink(name, tag))
	if err != nil {
		return "", err
	}
	return parseDigest(strings.TrimSpace(string(data)))
}

// resolve finds the digest of a tag or digest of a repository.
func (s *shelf) resolve(name, arg string) (digest.Digest, error) {
	if strings.Contains(arg, ":") {
		d, err := parseDigest(arg)
		if err != nil {
			return "", err
		}
		if _, err := s.readRecord(s.manifestLink(name, d)); err != nil {
			return "", s.missing(name, arg, err)
		}
		return d, nil
	}
	d, err := s.tagged(name, arg)
	if err != nil {
		return "", s.missing(name, arg, err)
	}
	return d, nil
}

func (s *shelf) missing(name, arg string, err error) error {
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !s.known(name):
		return refuse(http.StatusNotFound, "NAME_UNKNOWN", "repository %s is unknown to this registry", name)
	}
	return manifestUnknown(arg)
}

// stored reads a manifest of a repository.
func (s *shelf) stored(name string, d digest.Digest) (rec record, data []byte, err error) {
	raw, err := s.readRecord(s.manifestLink(name, d))
	if err != nil {
		return rec, nil, err
	}
	if err := json.Unmarshal(raw, &rec); err != nil {
		return rec, nil, err
	}
	data, err = s.memory.read(s.blobs.Path(d), func(string) ([]byte, error) { return s.blobs.Bytes(d) })
	return rec, data, err
}

// get serves GET and HEAD.
func (c manifestCall) get() error {
	if k := c.cacheOf(c.name); k != nil {
		if err := (pullThrough{c.call, k}).refresh(); err != nil {
			return err
		}
	}
	d, err := c.resolve(c.name, c.arg)
	if err != nil {
		return err
	}
	rec, data, err := c.stored(c.name, d)
	if errors.Is(err, fs.ErrNotExist) {
		return manifestUnknown(c.arg)
	} else if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", rec.MediaType)
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", `"`+d.String()+`"`)
	if v := c.r.Header.Get("If-None-Match"); v != "" && strings.Contains(v, d.String()) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	c.w.Write(data)
	c.pulled(c.name, d)
	e := audit.Entry{Action: "pull", Object: "manifest", Digest: d.String(), Bytes: int64(len(data))}
	if !strings.Contains(c.arg, ":") {
		e.Tag = c.arg
	}
	c.happened(e, rec.MediaType)
	return nil
}

// pulled notes the time of a pull, to the hour.
func (s *shelf) pulled(name string, d digest.Digest) {
	path := s.manifestLink(name, d)
	if !s.index.pulledNow(path) {
		return
	}
	now := time.Now()
	os.Chtimes(path, now, now)
}

// put stores a manifest whose parts are all here. It answers when everything is on the disk, the blobs included; the tag
// is set last.
func (c manifestCall) put() error {
	if k := c.cacheOf(c.name); k != nil {
		return k.readOnly(c.name)
	}
	if err := c.room(); err != nil {
		return err
	}
	most := int64(c.config.Limits.Manifest)
	tooLong := refuse(http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", "a manifest may have %d bytes", most)
	if c.r.ContentLength > most {
		return tooLong
	}
	http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(patience))
	data, err := io.ReadAll(io.LimitReader(c.r.Body, most+1))
	http.NewResponseController(c.w).SetReadDeadline(time.Time{})
	if err != nil {
		return invalid("the request broke off: %v", err)
	}
	if int64(len(data)) > most {
		return tooLong
	}
	c.meters.received.Add(int64(len(data)))
	d, tag := digest.FromBytes(data), c.arg
	if strings.Contains(c.arg, ":") {
		want, err := parseDigest(c.arg)
		if err != nil {
			return err
		}
		if d, tag = want.Algorithm().FromBytes(data), ""; d != want {
			return refuse(http.StatusBadRequest, "DIGEST_INVALID", "the manifest has digest %s, not %s", d, want)
		}
	} else if !tagPattern.MatchString(tag) {
		return invalid("invalid tag %q", tag)
	}
	m, err := parseManifest(data, c.r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	c.links.RLock()
	defer c.links.RUnlock()
	if err := c.complete(c.name, m); err != nil {
		return err
	}
	blobs := m.blobs()
	if err := c.settling.wait(blobs); err != nil {
		return err
	}
	if err := c.syncLinks(c.name, blobs); err != nil {
		return err
	}
	if err := c.storeManifest(c.name, d, m, data); err != nil {
		return err
	}
	if tag != "" {
		if err := c.setTag(c.name, tag, d); err != nil {
			return err
		}
	}
	c.pins.settle(c.name, blobs, c.client())
	if m.Subject != nil {
		c.w.Header().Set("OCI-Subject", m.Subject.Digest.String())
	}
	c.created("/v2/"+c.name+"/manifests/"+d.String(), d)
	c.happened(audit.Entry{Action: "push", Object: "manifest", Digest: d.String(), Tag: tag, Bytes: int64(len(data))}, m.MediaType)
	return nil
}

// immutable tells whether a tag never moves once it is set.
func (h *Hub) immutable(name, tag string) bool {
	for _, r := range h.config.Immutable {
		if pattern.Any(r.Repositories, name) && pattern.Any(r.Tags, tag) && !pattern.Any(r.Except, tag) {
			return true
		}
	}
	return false
}

func immutableTag(name, tag string) *refusal {
	return refuse(http.StatusConflict, "DENIED", "tag %s of %s is immutable: it can neither be moved nor removed; use another tag", tag, name)
}

// setTag makes a tag stand for a manifest. links is held.
func (h *Hub) setTag(name, tag string, d digest.Digest) error {
	path := h.tagLink(name, tag)
	mu := &h.tags[stripe(path)]
	mu.Lock()
	defer mu.Unlock()
	old, err := h.tagged(name, tag)
	if err == nil && old == d {
		now := time.Now()
		return os.Chtimes(path, now, now)
	}
	if err == nil && h.immutable(name, tag) {
		return immutableTag(name, tag)
	}
	h.index.markDirty(name)
	return h.writeRecord(path, []byte(d.String()+"\n"))
}

func stripe(s string) int {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return int(h % 64)
}

// parseManifest accepts Docker's schema 2 and the image-spec's manifests; MediaType is set in what it returns.
func parseManifest(data []byte, contentType string) (*manifest, error) {
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, invalid("not JSON: %v", err)
	}
	header, _, _ := mime.ParseMediaType(contentType)
	switch {
	case m.SchemaVersion != 2:
		return nil, invalid("schemaVersion is %d; only version 2 is supported", m.SchemaVersion)
	case m.MediaType == "":
		m.MediaType = header
	case header != "" && header != m.MediaType:
		return nil, invalid("Content-Type is %s, the manifest says %s", header, m.MediaType)
	}
	if m.MediaType == "" && m.Manifests != nil {
		m.MediaType = ocispec.MediaTypeImageIndex
	} else if m.MediaType == "" {
		m.MediaType = ocispec.MediaTypeImageManifest
	}
	switch m.MediaType {
	case ocispec.MediaTypeImageManifest, dockerManifest:
		if m.Config == nil || m.Manifests != nil {
			return nil, invalid("an image manifest has a config and no manifests")
		}
	case ocispec.MediaTypeImageIndex, dockerList:
		if m.Config != nil || m.Layers != nil {
			return nil, invalid("an index has neither config nor layers")
		}
	default:
		return nil, invalid("media type %q is not supported", m.MediaType)
	}
	all := slices.Concat(m.Layers, m.Manifests)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	if m.Subject != nil {
		all = append(all, *m.Subject)
	}
	for _, d := range all {
		if _, err := parseDigest(d.Digest.String()); err != nil {
			return nil, err
		}
		if d.Size < 0 {
			return nil, invalid("%s has size %d", d.Digest, d.Size)
		}
	}
	return &m, nil
}

// complete fails with MANIFEST_BLOB_UNKNOWN if a part is not in the repository. Layers that are
// fetched from elsewhere (with urls), and the subject, may be missing.
func (s *shelf) complete(name string, m *manifest) error {
	unknown := func(d ocispec.Descriptor) error {
		f := refuse(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "%s is unknown to repository %s; push it first", d.Digest, name)
		f.detail = map[string]string{"digest": d.Digest.String()}
		return f
	}
	parts := m.Layers
	if m.Config != nil {
		parts = append(slices.Clone(parts), *m.Config)
	}
	for _, d := range parts {
		if s.hasBlob(name, d.Digest) {
			if size, err := s.blobs.Size(d.Digest); err == nil && size != d.Size {
				return invalid("%s has %d bytes, the manifest says %d", d.Digest, size, d.Size)
			}
			continue
		}
		if len(d.URLs) == 0 {
			return unknown(d)
		}
	}
	for _, d := range m.Manifests {
		if !exists(s.manifestLink(name, d.Digest)) {
			return unknown(d)
		}
	}
	return nil
}

// storeManifest writes the blob, then what refers to the subject, then the record. links is held.
func (s *shelf) storeManifest(name string, d digest.Digest, m *manifest, data []byte) error {
	path := s.blobs.Path(d)
	if old, err := os.ReadFile(path); err != nil || !bytes.Equal(old, data) {
		if err := files.Write(path, data, 0o644, files.Synced); err != nil {
			return err
		}
	}
	rec := record{Descriptor: ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(data))}}
	if m.Subject != nil {
		if err := s.addReferrer(name, rec.Descriptor, m); err != nil {
			return err
		}
	}
	link := s.manifestLink(name, d)
	if old, err := s.readRecord(link); err == nil {
		var was record
		if json.Unmarshal(old, &was) == nil && was.MediaType == m.MediaType {
			return nil
		}
	}
	rec.Pushed = time.Now().UTC()
	encoded, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if err := s.writeRecord(link, encoded); err != nil {
		return err
	}
	s.index.add(d, name, true)
	return nil
}

// delete serves DELETE: a tag goes alone, a digest with all its tags.
func (c manifestCall) delete() error {
	mighty := c.access != nil && c.access.Allowed(c.who.id, c.name, access.Admin)
	c.links.Lock()
	defer c.links.Unlock()
	if !strings.Contains(c.arg, ":") {
		if !mighty && c.immutable(c.name, c.arg) && exists(c.tagLink(c.name, c.arg)) {
			return immutableTag(c.name, c.arg)
		}
		d, err := c.resolve(c.name, c.arg)
		if err != nil {
			return err
		}
		if err := c.unlink(c.tagLink(c.name, c.arg)); err != nil {
			return c.missing(c.name, c.arg, err)
		}
		c.w.WriteHeader(http.StatusAccepted)
		c.happened(audit.Entry{Action: "delete", Object: "tag", Tag: c.arg, Digest: d.String()}, "")
		return nil
	}
	d, err := c.resolve(c.name, c.arg)
	if err != nil {
		return err
	}
	tags, err := c.tagsFor(c.name, d)
	if err != nil {
		return err
	}
	for _, t := range tags {
		if !mighty && c.immutable(c.name, t) {
			return immutableTag(c.name, t)
		}
	}
	freed, err := c.dropManifest(c.name, d, tags)
	if err != nil {
		return err
	}
	c.meters.freed.Add(freed)
	c.w.WriteHeader(http.StatusAccepted)
	c.happened(audit.Entry{Action: "delete", Object: "manifest", Digest: d.String()}, "")
	return nil
}

// dropManifest removes a manifest from a repository, its tags first. links is held exclusively.
func (h *Hub) dropManifest(name string, d digest.Digest, tags []string) (freed int64, err error) {
	for _, t := range tags {
		if err := h.unlink(h.tagLink(name, t)); err != nil {
			return 0, err
		}
	}
	rec, data, readErr := h.stored(name, d)
	if err := h.unlink(h.manifestLink(name, d)); err != nil {
		return 0, err
	}
	h.index.remove(d, name, true)
	if readErr != nil {
		return h.dropUnlinked(d)
	}
	if m, err := parseManifest(data, rec.MediaType); err == nil {
		h.pins.release(name, m.blobs())
		if m.Subject != nil {
			dir := h.referrersDir(name, m.Subject.Digest)
			os.Remove(filepath.Join(dir, flat(d)))
			os.Remove(dir) // when it was the last
		}
	}
	return h.dropUnlinked(d)
}

// tagsFor lists the tags of a manifest.
func (s *shelf) tagsFor(name string, d digest.Digest) ([]string, error) {
	all, err := s.tagsOf(name)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(tag string) bool {
		got, err := s.tagged(name, tag)
		return err != nil || got != d
	}), nil
}
