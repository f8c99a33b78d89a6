package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// unpack writes a tar's files into a folder, which is made if it is missing. Nothing leads out of it, whatever the tar says.
func unpack(r io.Reader, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	type dated struct {
		name string
		mode fs.FileMode
		time time.Time
	}
	var dirs []dated // whose modes and times come last
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("the engine's answer broke off: %w", err)
		}
		name := strings.TrimPrefix(path.Join("/", h.Name), "/")
		if name == "" {
			continue
		}
		mode := h.FileInfo().Mode()
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if h.Typeflag != tar.TypeDir {
			if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		switch h.Typeflag {
		case tar.TypeDir:
			if err := root.MkdirAll(name, 0o700); err != nil {
				return err
			}
			dirs = append(dirs, dated{name, mode, h.ModTime})
		case tar.TypeReg:
			f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			_, err = io.Copy(f, tr)
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
		case tar.TypeSymlink:
			if err := root.Symlink(h.Linkname, name); err != nil {
				return err
			}
		case tar.TypeLink:
			if err := root.Link(strings.TrimPrefix(path.Join("/", h.Linkname), "/"), name); err != nil {
				return err
			}
			continue
		default:
			continue // devices and pipes are of no use outside of a container
		}
		if os.Geteuid() == 0 {
			if err := root.Lchown(name, h.Uid, h.Gid); err != nil {
				return err
			}
		}
		if h.Typeflag == tar.TypeReg {
			if err := root.Chmod(name, mode); err != nil {
				return err
			}
			if err := root.Chtimes(name, h.ModTime, h.ModTime); err != nil {
				return err
			}
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := root.Chmod(dirs[i].name, dirs[i].mode); err != nil {
			return err
		}
		if err := root.Chtimes(dirs[i].name, dirs[i].time, dirs[i].time); err != nil {
			return err
		}
	}
	return nil
}

// take receives the result's files.
func (d destination) take(r io.Reader, env *command.Env) error {
	if d.kind == "local" {
		return unpack(r, d.dest)
	}
	return d.write(r, env)
}

func (d destination) write(r io.Reader, env *command.Env) error {
	if d.dest == "-" {
		if env.StdoutTTY() {
			return errors.New("refusing to write the output to a terminal: use dest=FILE, or redirect")
		}
		_, err := io.Copy(env.Stdout, r)
		return err
	}
	f, err := os.Create(d.dest)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// finish does what is left to do with an image that was built: save it as an archive, push it.
func (d destination) finish(ctx context.Context, env *command.Env, id string, tags []string) error {
	c, err := env.Client(ctx)
	if err != nil {
		return err
	}
	if (d.kind == "docker" || d.kind == "oci") && d.dest != "" {
		refs := tags
		if len(refs) == 0 {
			refs = []string{id}
		}
		r, err := c.ImageSave(ctx, refs)
		if err != nil {
			return err
		}
		defer r.Close()
		return d.write(r, env)
	}
	if !d.push {
		return nil
	}
	if len(tags) == 0 {
		return errors.New("tag is needed when pushing to registry")
	}
	for _, t := range tags {
		named, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return err
		}
		var o client.ImagePushOptions
		if o.RegistryAuth, err = env.RegistryAuth(named); err != nil {
			return err
		}
		r, err := c.ImagePush(ctx, reference.FamiliarString(reference.TagNameOnly(named)), o)
		if err != nil {
			return err
		}
		err = output.Progress(r, env.Stdout, output.TerminalOf(env.Stdout), nil)
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}
