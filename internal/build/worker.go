package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/trace"
	"tare/internal/build/copier"
	"tare/internal/build/graph"
	"tare/internal/build/rootfs"
	"tare/internal/build/solve"
	"tare/internal/build/source"
	"tare/internal/image/layer"
)

// worker does the steps of one build.
type worker struct {
	s     *Service
	req   *Request
	graph *graph.Graph
	files *source.Archive            // the context
	also  map[string]*source.Archive // named contexts that are folders
	busy  sync.WaitGroup             // steps that run

	mu        sync.Mutex // guards downloads and also
	downloads map[string]*download
}

// Begin implements solve.Worker.
func (w *worker) Begin() func() {
	w.busy.Add(1)
	return w.busy.Done
}

// close frees context and downloads when no step uses them any more.
func (w *worker) close() {
	w.busy.Wait()
	w.files.Close()
	for _, d := range w.downloads {
		<-d.done
		if d.files != nil {
			d.files.Close()
		}
	}
}

// Reads implements solve.Worker: the digests of context files and downloads.
func (w *worker) Reads(ctx context.Context, s graph.Step) (string, error) {
	switch op := s.Op.(type) {
	case graph.Copy:
		sum := ""
		if op.From.Context && len(op.Paths) > 0 {
			files, err := w.context(ctx, op.From.Name)
			if err != nil {
				return "", err
			}
			if sum, err = sumOf(files, op.Word, op.Paths, op.Exclude, op.Parents); err != nil {
				return "", err
			}
		}
		for _, u := range op.URLs {
			files, err := w.download(ctx, u, op)
			if err != nil {
				return "", err
			}
			all, err := copier.Select(files, op.Word, []string{"/"}, nil, false)
			if err != nil {
				return "", err
			}
			one, err := all.Sum(false)
			if err != nil {
				return "", err
			}
			sum += " " + one
		}
		return sum, nil
	case graph.Run:
		sum := ""
		for _, m := range op.Mounts {
			if m.Type != "bind" || !m.From.Context {
				continue
			}
			files, err := w.context(ctx, m.From.Name)
			if err != nil {
				return "", err
			}
			one, err := sumOf(files, "RUN", []string{m.Path}, nil, false)
			if err != nil {
				return "", err
			}
			sum += " " + one
		}
		return sum, nil
	}
	return "", nil
}

// context finds a build context.
func (w *worker) context(ctx context.Context, name string) (*source.Archive, error) {
	if name == "" {
		return w.files, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.also[name]; a != nil {
		return a, nil
	}
	a, err := w.s.contexts.listed(ctx, w.req.Peer, name, w.req.Contexts[name].Digest)
	if err == nil {
		w.also[name] = a
	}
	return a, err
}

// sumOf is the digest of a selection from a context.
func sumOf(a *source.Archive, word string, paths, exclude []string, parents bool) (string, error) {
	return a.Memo(fmt.Sprintf("%q %q %t", paths, exclude, parents), func() (string, error) {
		sel, err := copier.Select(a, word, paths, exclude, parents)
		if err != nil {
			return "", err
		}
		return sel.Sum(false)
	})
}

// download is a URL's file, fetched once per build.
type download struct {
	done  chan struct{} // closed when the rest is set
	files *source.Archive
	err   error
}

func (w *worker) download(ctx context.Context, url string, op graph.Copy) (*source.Archive, error) {
	want, name := op.Sum, fmt.Sprint(url, " ", op.KeepGit, " ", op.Commit)
	w.mu.Lock()
	d := w.downloads[name]
	first := d == nil
	if first {
		d = &download{done: make(chan struct{})}
		w.downloads[name] = d
	}
	w.mu.Unlock()
	if first {
		if graph.IsGit(url) {
			d.files, d.err = w.clone(ctx, url, op)
		} else {
			d.files, d.err = w.fetch(ctx, url)
		}
		close(d.done)
	}
	select {
	case <-d.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d.err == nil && want != "" {
		if err := verify(d.files, want); err != nil {
			return nil, fmt.Errorf("ADD failed: %s: %w", url, err)
		}
	}
	return d.files, d.err
}

func (w *worker) fetch(ctx context.Context, url string) (*source.Archive, error) {
	body, at, err := fetch(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("ADD failed: %w", err)
	}
	defer body.Close()
	name := fileOf(url)
	if name == "" {
		name = unnamed
	}
	files, err := source.File(w.s.tmp(), name, body, 0o600, at)
	if err != nil {
		return nil, fmt.Errorf("ADD failed: cannot fetch %s: %w", url, err)
	}
	return files, nil
}

// clone fetches a git repository.
func (w *worker) clone(ctx context.Context, url string, op graph.Copy) (*source.Archive, error) {
	r, err := source.ParseRepository(url)
	if err != nil {
		return nil, err
	}
	return source.Clone(ctx, r, w.s.tmp(), op.Commit, op.KeepGit)
}

// unnamed is a download whose URL has no file name: it can't go into a folder.
const unnamed = "__unnamed__"

func verify(a *source.Archive, want digest.Digest) error {
	root, err := a.Stat("/", false)
	if err != nil {
		return err
	}
	list, err := a.List(root)
	if err != nil || len(list) != 1 {
		return err
	}
	r, err := a.Open(list[0])
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := want.Algorithm().FromReader(r)
	if err != nil {
		return err
	}
	if got != want {
		return fault.Invalid("digest mismatch sha256: got %s, want %s", got, want)
	}
	return nil
}

// Do implements solve.Worker.
func (w *worker) Do(ctx context.Context, work solve.Work, log io.Writer) (solve.Layer, error) {
	trace.Step(ctx, "build", graph.Kind(work.Step.Op), "step", work.Step.About)
	a, err := w.s.area(work.Parent)
	if err != nil {
		return solve.Layer{}, err
	}
	defer a.remove()
	switch op := work.Step.Op.(type) {
	case graph.Copy:
		err = w.copy(ctx, a, op, work)
	case graph.MakeDir:
		err = makeDir(a, op)
	case graph.Run:
		err = w.run(ctx, a, op, work, log)
	default:
		err = fault.Internal("no way to do a step of kind %s", graph.Kind(op))
	}
	if err != nil {
		return solve.Layer{}, err
	}
	return w.s.commit(ctx, a, work)
}

// area is where a step works: a folder in build/tmp with an overlay's upper directory.
type area struct {
	dir, upper, work string
	lower            []string // of the parent, topmost first
	root             unix.Stat_t
}

// area makes one. The upper directory gets the parent root's attributes, which it would hide otherwise.
func (s *Service) area(parent []digest.Digest) (*area, error) {
	lower, err := s.lower(parent)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.tmp(), "step-")
	if err != nil {
		return nil, err
	}
	a := &area{dir: dir, upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work"), lower: lower}
	if err := a.make(); err != nil {
		a.remove()
		return nil, err
	}
	return a, nil
}

func (s *Service) lower(diffIDs []digest.Digest) ([]string, error) {
	if len(diffIDs) == 0 {
		return nil, nil
	}
	return s.cfg.Images.LowerOf(diffIDs)
}

func (a *area) make() error {
	for _, d := range []string{a.upper, a.work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(a.upper, 0o755); err != nil { // whatever the umask
		return err
	}
	if len(a.lower) > 0 {
		var st unix.Stat_t
		if err := unix.Stat(a.lower[0], &st); err != nil {
			return err
		}
		if err := os.Chown(a.upper, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
		if err := unix.Chmod(a.upper, st.Mode&0o7777); err != nil {
			return err
		}
	}
	return unix.Stat(a.upper, &a.root)
}

func (a *area) remove() { os.RemoveAll(a.dir) }

// open mounts the step's root to write into it.
func (a *area) open() (*rootfs.Root, error) { return rootfs.Open(a.lower, a.upper, a.work) }

// changed tells whether the step left anything.
func (a *area) changed() (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(a.upper, &st); err != nil {
		return false, err
	}
	if st.Mode != a.root.Mode || st.Uid != a.root.Uid || st.Gid != a.root.Gid {
		return true, nil
	}
	d, err := os.Open(a.upper)
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, err := d.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return len(names) > 0, err
}

// commit turns what a step left into a layer; nothing becomes no layer.
func (s *Service) commit(ctx context.Context, a *area, work solve.Work) (solve.Layer, error) {
	changed, err := a.changed()
	if err != nil || !changed {
		return solve.Layer{}, err
	}
	l, err := s.cfg.Images.CommitAt(ctx, a.upper, layer.Times{Since: work.Since, At: time.Unix(work.Step.Epoch, 0)})
	if err != nil {
		return solve.Layer{}, err
	}
	trace.Step(ctx, "image", "commit", "layer", l.DiffID.String())
	return solve.Layer{DiffID: l.DiffID, Size: l.Size, Since: l.Since}, nil
}

func makeDir(a *area, op graph.MakeDir) error {
	root, err := a.open()
	if err != nil {
		return err
	}
	defer root.Close()
	owner := copier.Owner{}
	if op.Owner != "" {
		u, err := root.User(op.Owner)
		if err != nil {
			return fmt.Errorf("WORKDIR failed: %w", err)
		}
		owner = copier.Owner{UID: u.UID, GID: u.GID}
	}
	if err := copier.MakeDir(root, op.Path, owner, time.Now()); err != nil {
		return fmt.Errorf("WORKDIR failed: %w", err)
	}
	return nil
}
