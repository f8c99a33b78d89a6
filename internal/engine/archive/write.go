package archive

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"strings"

	"tare/internal/image/layer"
)

// write sends the entry as a tar whose names begin with as.
func (e *entry) write(ctx context.Context, w io.Writer, as string) error {
	o := layer.WriteOptions{Name: e.base, As: as}
	if e.base == "." {
		o.Name = ""
	}
	if as != "." && as != "/" {
		_, err := layer.WriteTar(ctx, w, e.parent, o)
		return err
	}
	// "./" and "/" have to stand before each name: Docker's client looks for them when it gives the folder another
	// name. They are no clean names, so another one is written and replaced.
	o.As = "root"
	r, pw := io.Pipe()
	defer r.Close()
	go func() {
		_, err := layer.WriteTar(ctx, pw, e.parent, o)
		pw.CloseWithError(err)
	}()
	return rename(w, r, o.As+"/", strings.TrimSuffix(as, "/")+"/")
}

// rename copies a tar and replaces what its names begin with.
func rename(w io.Writer, r io.Reader, from, to string) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tw.Close()
		}
		if err != nil {
			return err
		}
		h.Name = to + strings.TrimPrefix(h.Name, from)
		if h.Typeflag == tar.TypeLink {
			h.Linkname = to + strings.TrimPrefix(h.Linkname, from)
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}
