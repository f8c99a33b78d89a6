package archive

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/progress"
	"tare/internal/image"
	"tare/internal/image/compress"
	"tare/internal/image/layer"
)

// Import makes a one-layer image from a root file system tar, compressed or not. name may be nil. config's platform
// and creation time are this host's and now where it has none; a history line is added if it has none. As in Docker
// there is no progress but the result.
func Import(ctx context.Context, s *image.Store, r io.Reader, config *image.Config, name reference.NamedTagged, _ progress.Sink) (*image.Image, error) {
	img, err := importTar(ctx, s, r, config, name)
	if err != nil {
		return nil, fmt.Errorf("cannot import image: %w", err)
	}
	s.Announce("import", img, img.ID.String())
	return img, nil
}

func importTar(ctx context.Context, s *image.Store, r io.Reader, config *image.Config, name reference.NamedTagged) (*image.Image, error) {
	tar, _, err := compress.Reader(ctx, r)
	if err != nil {
		return nil, err
	}
	defer tar.Close()
	arrived := s.Arrive()
	defer arrived()
	l, err := s.CommitTar(ctx, tar)
	if err != nil {
		return nil, err
	}
	c := image.Config{}
	if config != nil {
		c = *config
	}
	now := time.Now().UTC()
	if c.Created == nil {
		c.Created = &now
	}
	if c.OS == "" {
		c.OS = runtime.GOOS
	}
	if c.Architecture == "" {
		c.Architecture = runtime.GOARCH
	}
	if len(c.History) == 0 {
		c.History = []ocispec.History{{Created: c.Created, Comment: "Imported from -"}}
	}
	var names []reference.NamedTagged
	if name != nil {
		names = append(names, name)
	}
	img, err := s.Put(&c, []layer.Layer{l}, names...)
	if err != nil {
		arrived()
		s.Discard(l.DiffID, l.Blob)
		return nil, err
	}
	return img, nil
}
