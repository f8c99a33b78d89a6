package image

import (
	"context"

	"tare/internal/image/layer"
)

// Diff compares the files of two images: what b has and a has not, what is gone, and what is another file; sorted by path.
func (h History) Diff(ctx context.Context, a, b *Image) ([]layer.Difference, error) {
	from, err := h.Store.Lower(a)
	if err != nil {
		return nil, err
	}
	to, err := h.Store.Lower(b)
	if err != nil {
		return nil, err
	}
	return layer.Diff(ctx, from, to)
}
