// Package archive moves images in and out of tar files: docker-archive
// (`docker save`: manifest.json, repositories) and OCI layouts in one file that is both, as Docker 25 and newer write it.
package archive

import (
	"context"
	"io"

	"github.com/distribution/reference"

	"tare/internal/base/fault"
	"tare/internal/base/progress"
	"tare/internal/image"
)

// Save streams images to w; layers that several share are written once.
func Save(ctx context.Context, s *image.Store, refs []string, w io.Writer) error {
	return fault.Unsupported("")
}

// Load reads either form, compressed or not, and returns the loaded images' names (or ids where they have none).
func Load(ctx context.Context, s *image.Store, r io.Reader, p progress.Sink) ([]string, error) {
	return nil, fault.Unsupported("")
}

// Import makes a one-layer image from a root file system tar, compressed or not.
func Import(ctx context.Context, s *image.Store, r io.Reader, config *image.Config, name reference.NamedTagged, p progress.Sink) (*image.Image, error) {
	return nil, fault.Unsupported("")
}
