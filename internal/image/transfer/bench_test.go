package transfer

import (
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/reference"

	"tare/internal/hub"
	"tare/internal/image"
	"tare/internal/image/blob"
	"tare/internal/image/layer"
	"tare/internal/image/registry"
	"tare/internal/test/images"
)

// BenchmarkPull fetches the image of shared/peers.md: 8 layers, 494 MB, 15,000 files.
func BenchmarkPull(b *testing.B) {
	h, err := hub.Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	srv := httptest.NewServer(h)
	defer srv.Close()
	img, err := images.Generate(images.Options{Layers: 8, FilesPerLayer: 1875, FileSize: 32900})
	if err != nil {
		b.Fatal(err)
	}
	var packed int64
	for _, l := range img.Layers {
		packed += l.Size
	}
	b.Logf("%d MB in %d MB", img.Unpacked/1e6, packed/1e6)
	if err := img.Push(srv.URL, "bench", "latest"); err != nil {
		b.Fatal(err)
	}
	img = nil
	ref, _ := reference.ParseNormalizedNamed(strings.TrimPrefix(srv.URL, "http://") + "/bench:latest")
	c, err := registry.New(registry.Config{})
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	n := 0
	for b.Loop() {
		n++
		root := filepath.Join(dir, fmt.Sprint(n))
		blobs, err := blob.Open(filepath.Join(root, "images"))
		if err != nil {
			b.Fatal(err)
		}
		layers, err := layer.Open(filepath.Join(root, "layers"))
		if err != nil {
			b.Fatal(err)
		}
		s := New(&image.Store{Blobs: blobs, Layers: layers}, c, nil, Limits{})
		repo := c.Repository(ref, nil, registry.Pull)
		data, d, err := repo.Manifest(b.Context(), "latest")
		if err != nil {
			b.Fatal(err)
		}
		j := &job{s: s, repo: repo, ref: ref}
		if err := j.fetch(b.Context(), data, d, nil); err != nil {
			b.Fatal(err)
		}
	}
}
