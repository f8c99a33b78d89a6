package build

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"tare/internal/base/fault"
	"tare/internal/build/copier"
	"tare/internal/build/graph"
	"tare/internal/build/rootfs"
	"tare/internal/build/solve"
	"tare/internal/build/source"
	"tare/internal/image/compress"
)

// copy does COPY and ADD.
func (w *worker) copy(ctx context.Context, a *area, op graph.Copy, work solve.Work) error {
	root, err := a.open()
	if err != nil {
		return err
	}
	defer root.Close()
	o := copier.Options{Dest: op.Dest, Word: op.Word, Time: time.Unix(0, 0)}
	if op.Owner != "" {
		uid, gid, err := root.Owner(op.Owner)
		if err != nil {
			return fmt.Errorf("%s failed: invalid user %s: %w", op.Word, op.Owner, err)
		}
		o.Owner = &copier.Owner{UID: uid, GID: gid}
	}
	o.Mode = op.Mode
	put := func(sel *copier.Selection, o copier.Options) error {
		if len(sel.Items) > 0 {
			o.Time = sel.Items[0].Entry.ModTime
		}
		return copier.Copy(ctx, root, sel, o)
	}
	if len(op.Paths) > 0 {
		from, end, err := w.tree(ctx, op.From, work)
		if err != nil {
			return err
		}
		defer end()
		sel, err := copier.Select(from, op.Word, op.Paths, op.Exclude, op.Parents)
		if err != nil {
			return err
		}
		if len(sel.Items) > 1 && !strings.HasSuffix(op.Dest, "/") {
			return fault.Invalid("When using %s with more than one source file, the destination must be a directory and end with a /", op.Word)
		}
		if op.From.Context {
			if err := w.fetchFiles(ctx, op.From.Name, sel); err != nil {
				return err
			}
		}
		if op.Extract {
			if err := w.extract(ctx, sel, put, o); err != nil {
				return err
			}
		}
		if op.From.Context { // a checkout has other times on every host
			o.Floor = work.Since
		}
		if err := put(sel, o); err != nil {
			return err
		}
	}
	o.Floor = time.Time{}
	for _, u := range op.URLs {
		files, err := w.download(ctx, u, op)
		if err != nil {
			return err
		}
		if graph.IsGit(u) {
			sel, err := copier.Select(files, op.Word, []string{"/"}, op.Exclude, false)
			if err != nil {
				return err
			}
			if err := put(sel, o); err != nil {
				return err
			}
			continue
		}
		if fileOf(u) == "" && (strings.HasSuffix(op.Dest, "/") || root.IsDir(op.Dest)) {
			return fault.Invalid("ADD failed: cannot determine filename for source %s", u)
		}
		name := fileOf(u)
		if name == "" {
			name = unnamed
		}
		sel, err := copier.Select(files, op.Word, []string{"/" + name}, nil, false)
		if err != nil {
			return err
		}
		if op.Unpack {
			if err := w.extract(ctx, sel, put, o); err != nil {
				return err
			}
		}
		if err := put(sel, o); err != nil {
			return err
		}
	}
	o.Floor = work.Since
	for _, f := range op.Inline {
		files, err := source.File(w.s.tmp(), f.Name, strings.NewReader(f.Data), 0o644, time.Unix(0, 0))
		if err != nil {
			return err
		}
		defer files.Close()
		sel, err := copier.Select(files, op.Word, []string{"/" + f.Name}, nil, false)
		if err != nil {
			return err
		}
		if err := put(sel, o); err != nil {
			return err
		}
	}
	return nil
}

// tree opens what a step copies from.
func (w *worker) tree(ctx context.Context, from graph.Source, work solve.Work) (source.Tree, func(), error) {
	if from.Context {
		files, err := w.context(ctx, from.Name)
		return files, func() {}, err
	}
	lower, err := w.s.lower(work.Inputs[from.Input])
	if err != nil {
		return nil, nil, err
	}
	root, err := rootfs.Open(lower, "", "")
	if err != nil {
		return nil, nil, err
	}
	return root, func() { root.Close() }, nil
}

// extract takes the tar files out of the selection and unpacks them into the destination.
func (w *worker) extract(ctx context.Context, sel *copier.Selection, put func(*copier.Selection, copier.Options) error, o copier.Options) error {
	var rest []copier.Item
	for _, item := range sel.Items {
		if !item.Entry.Mode.IsRegular() {
			rest = append(rest, item)
			continue
		}
		is, err := isTar(ctx, sel.Tree, item.Entry)
		if err != nil {
			return err
		}
		if !is {
			rest = append(rest, item)
			continue
		}
		if err := w.unpack(ctx, sel.Tree, item.Entry, put, o); err != nil {
			return fmt.Errorf("ADD failed: cannot unpack %s: %w", item.Name, err)
		}
	}
	sel.Items = rest
	return nil
}

// isTar looks for a tar's first header behind whatever compression.
func isTar(ctx context.Context, t source.Tree, e *source.Entry) (bool, error) {
	r, err := t.Open(e)
	if err != nil {
		return false, err
	}
	defer r.Close()
	head, err := bufio.NewReaderSize(r, 512).Peek(6)
	if err != nil {
		return false, nil // shorter than any tar
	}
	form := compress.Detect(head)
	again, err := t.Open(e)
	if err != nil {
		return false, err
	}
	defer again.Close()
	plain := io.Reader(again)
	if form != compress.None {
		z, _, err := compress.Reader(ctx, again)
		if err != nil {
			return false, nil
		}
		defer z.Close()
		plain = z
	}
	return source.IsTar(plain), nil
}

func (w *worker) unpack(ctx context.Context, t source.Tree, e *source.Entry, put func(*copier.Selection, copier.Options) error, o copier.Options) error {
	r, err := t.Open(e)
	if err != nil {
		return err
	}
	defer r.Close()
	files, err := source.Read(ctx, r, w.s.tmp(), source.Kept)
	if err != nil {
		return err
	}
	defer files.Close()
	all, err := copier.Select(files, "ADD", []string{"/"}, nil, false)
	if err != nil {
		return err
	}
	o.Mode, o.Keep = "", true
	o.Dest = strings.TrimSuffix(o.Dest, "/") + "/"
	return put(all, o)
}

// materialize writes a path of a source into dir, for a bind mount, and returns the host path of the copy. t may be the context of that name.
func (w *worker) materialize(ctx context.Context, from string, t source.Tree, name, dir string) (string, error) {
	sel, err := copier.Select(t, "RUN", []string{name}, nil, false)
	if err != nil {
		return "", err
	}
	if err := w.fetchFiles(ctx, from, sel); err != nil {
		return "", err
	}
	root, err := rootfs.Open(nil, dir, "")
	if err != nil {
		return "", err
	}
	defer root.Close()
	if err := copier.Copy(ctx, root, sel, copier.Options{Dest: "/content", Word: "RUN"}); err != nil {
		return "", err
	}
	return dir + "/content", nil
}
