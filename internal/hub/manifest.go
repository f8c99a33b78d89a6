package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/files"
)

// maxManifest is the longest manifest, in bytes (distribution-spec asks for at least 4 MiB).
const maxManifest = 4 << 20

// Docker's media types; those of the image-spec come from its package.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	emptyJSON      = "application/vnd.oci.empty.v1+json"
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

func invalid(format string, args ...any) *refusal {
	return refuse(http.StatusBadRequest, "MANIFEST_INVALID", format, args...)
}

func manifestUnknown(arg string) *refusal {
	return refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown: %s", arg)
}

// resolve finds the digest of a tag or digest of a repository.
func (s *shelf) resolve(name, arg string) (digest.Digest, error) {
	if strings.Contains(arg, ":") {
		d, err := parseDigest(arg)
		if err != nil {
			return "", err
		}
		if !exists(s.manifestLink(name, d)) {
			if !s.known(name) {
				return "", refuse(http.StatusNotFound, "NAME_UNKNOWN", "repository %s is unknown to this registry", name)
			}
			return "", manifestUnknown(arg)
		}
		return d, nil
	}
	if !tagPattern.MatchString(arg) {
		return "", refuse(http.StatusBadRequest, "TAG_INVALID", "invalid tag %q", arg)
	}
	data, err := os.ReadFile(s.tagLink(name, arg))
	if errors.Is(err, fs.ErrNotExist) {
		return "", manifestUnknown("tag " + arg)
	}
	if err != nil {
		return "", err
	}
	return parseDigest(strings.TrimSpace(string(data)))
}

// getManifest serves GET and HEAD.
func (h *Hub) getManifest(w http.ResponseWriter, r *http.Request, name, arg string) error {
	d, err := h.resolve(name, arg)
	if err != nil {
		return err
	}
	var desc ocispec.Descriptor
	if err := files.ReadJSON(h.manifestLink(name, d), &desc); errors.Is(err, fs.ErrNotExist) {
		return manifestUnknown(arg)
	} else if err != nil {
		return err
	}
	data, err := h.blobs.Bytes(d)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", desc.MediaType)
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("ETag", `"`+d.String()+`"`)
	if strings.Trim(r.Header.Get("If-None-Match"), `"`) == d.String() {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		w.Write(data)
	}
	return nil
}

// putManifest stores a manifest whose parts are all here. It answers when everything is on the disk; the tag
// is set last.
func (h *Hub) putManifest(w http.ResponseWriter, r *http.Request, name, arg string) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxManifest+1))
	if err != nil {
		return invalid("the request broke off: %v", err)
	}
	if len(data) > maxManifest {
		return refuse(http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", "a manifest may have %d bytes", maxManifest)
	}
	d, tag := digest.FromBytes(data), arg
	if strings.Contains(arg, ":") {
		want, err := parseDigest(arg)
		if err != nil {
			return err
		}
		if d, tag = want.Algorithm().FromBytes(data), ""; d != want {
			return refuse(http.StatusBadRequest, "DIGEST_INVALID", "the manifest has digest %s, not %s", d, want)
		}
	} else if !tagPattern.MatchString(arg) {
		return refuse(http.StatusBadRequest, "TAG_INVALID", "invalid tag %q", arg)
	}
	m, err := parseManifest(data, r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	h.links.RLock()
	defer h.links.RUnlock()
	if err := h.complete(name, m); err != nil {
		return err
	}
	if err := h.storeManifest(name, d, m, data); err != nil {
		return err
	}
	if tag != "" {
		if err := writeLink(h.tagLink(name, tag), []byte(d.String()+"\n")); err != nil {
			return err
		}
	}
	if m.Subject != nil {
		w.Header().Set("OCI-Subject", m.Subject.Digest.String())
	}
	created(w, "/v2/"+name+"/manifests/"+d.String(), d)
	return nil
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

// storeManifest writes the blob, then the link, then what refers to the subject.
func (h *Hub) storeManifest(name string, d digest.Digest, m *manifest, data []byte) error {
	path := h.blobs.Path(d)
	if old, err := os.ReadFile(path); err != nil || !bytes.Equal(old, data) {
		if err := files.Write(path, data, 0o644, files.Synced); err != nil {
			return err
		}
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(data))}
	record, err := json.Marshal(desc)
	if err != nil {
		return err
	}
	if err := writeLink(h.manifestLink(name, d), record); err != nil {
		return err
	}
	if m.Subject == nil {
		return nil
	}
	desc.Annotations = m.Annotations
	desc.ArtifactType = m.ArtifactType
	if desc.ArtifactType == "" && m.Config != nil && m.Config.MediaType != emptyJSON {
		desc.ArtifactType = m.Config.MediaType
	}
	if record, err = json.Marshal(desc); err != nil {
		return err
	}
	return writeLink(filepath.Join(h.referrersDir(name, m.Subject.Digest), flat(d)), record)
}

// deleteManifest serves DELETE: a tag goes alone, a digest with all its tags.
func (h *Hub) deleteManifest(w http.ResponseWriter, r *http.Request, name, arg string) error {
	h.links.Lock()
	defer h.links.Unlock()
	if !strings.Contains(arg, ":") {
		if !tagPattern.MatchString(arg) {
			return refuse(http.StatusBadRequest, "TAG_INVALID", "invalid tag %q", arg)
		}
		if err := unlink(h.tagLink(name, arg)); errors.Is(err, fs.ErrNotExist) {
			return manifestUnknown("tag " + arg)
		} else if err != nil {
			return err
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	d, err := h.resolve(name, arg)
	if err != nil {
		return err
	}
	if err := h.dropTags(name, d); err != nil {
		return err
	}
	if data, err := h.blobs.Bytes(d); err == nil {
		if m, err := parseManifest(data, ""); err == nil && m.Subject != nil {
			os.Remove(filepath.Join(h.referrersDir(name, m.Subject.Digest), flat(d)))
		}
	}
	if err := unlink(h.manifestLink(name, d)); err != nil {
		return err
	}
	if err := h.dropUnlinked(d); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// dropTags removes the tags of a manifest.
func (s *shelf) dropTags(name string, d digest.Digest) error {
	dir := filepath.Join(s.repository(name), "_tags")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err == nil && strings.TrimSpace(string(data)) == d.String() {
			if err := unlink(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// listReferrers serves the manifests whose subject is a digest, as an index; none is an empty one.
func (h *Hub) listReferrers(w http.ResponseWriter, r *http.Request, name, arg string) error {
	subject, err := parseDigest(arg)
	if err != nil {
		return err
	}
	dir := h.referrersDir(name, subject)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	kind := r.URL.Query().Get("artifactType")
	if kind != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	list := []ocispec.Descriptor{}
	for _, e := range entries {
		var d ocispec.Descriptor
		if strings.HasPrefix(e.Name(), files.TempPrefix) || files.ReadJSON(filepath.Join(dir, e.Name()), &d) != nil {
			continue
		}
		if kind == "" || d.ArtifactType == kind {
			list = append(list, d)
		}
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	writeJSON(w, http.StatusOK, map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": list})
	return nil
}
