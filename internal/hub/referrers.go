package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/files"
)

// maxReferrers is how long a page of referrers may get, in bytes of descriptors.
const maxReferrers = 3 << 20

// addReferrer notes that manifest d refers to the subject of m.
func (s *shelf) addReferrer(name string, d ocispec.Descriptor, m *manifest) error {
	d.Annotations = m.Annotations
	d.ArtifactType = m.ArtifactType
	if d.ArtifactType == "" && m.Config != nil {
		d.ArtifactType = m.Config.MediaType
	}
	encoded, err := json.Marshal(d)
	if err != nil {
		return err
	}
	path := filepath.Join(s.referrersDir(name, m.Subject.Digest), flat(d.Digest))
	if old, err := s.readRecord(path); err == nil && string(old) == string(encoded) {
		return nil
	}
	return s.writeRecord(path, encoded)
}

// listReferrers serves the manifests whose subject is a digest, as an index; none is an empty one.
func (c discovery) listReferrers() error {
	subject, err := parseDigest(c.arg)
	if err != nil {
		return err
	}
	dir := c.referrersDir(c.name, subject)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	q := c.r.URL.Query()
	kind, last := q.Get("artifactType"), q.Get("last")
	if kind != "" {
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	list := []json.RawMessage{}
	size := 0
	previous := ""
	for _, e := range entries { // by name
		if strings.HasPrefix(e.Name(), files.TempPrefix) || e.Name() <= last {
			continue
		}
		raw, err := c.readRecord(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // it has gone since
		}
		var d ocispec.Descriptor
		if err := json.Unmarshal(raw, &d); err != nil {
			return fmt.Errorf("cannot read referrer %s of %s: %w", e.Name(), c.name, err)
		}
		if kind != "" && d.ArtifactType != kind || digest.Digest(d.Digest).Validate() != nil || !exists(c.manifestLink(c.name, d.Digest)) {
			continue
		}
		if size += len(raw); size > maxReferrers && len(list) > 0 {
			next := url.Values{"last": {previous}}
			if kind != "" {
				next.Set("artifactType", kind)
			}
			c.w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, c.r.URL.EscapedPath(), next.Encode()))
			break
		}
		list = append(list, raw)
		previous = e.Name()
	}
	c.w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	return writeJSON(c.w, http.StatusOK, map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": list})
}
