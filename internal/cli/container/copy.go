package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
)

// NewCopy is `tare cp`.
func NewCopy(env *command.Env) *cobra.Command {
	var o copying
	o.env = env
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\ttare cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem", Args: command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			srcCtr, src := splitContainer(args[0])
			dstCtr, dst := splitContainer(args[1])
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			o.client = c
			switch {
			case srcCtr != "" && dstCtr != "":
				return errors.New("copying between containers is not supported")
			case srcCtr != "":
				return o.from(cmd.Context(), srcCtr, src, dst)
			case dstCtr != "":
				return o.to(cmd.Context(), dstCtr, src, dst)
			}
			return errors.New("must specify at least one container source")
		},
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if strings.ContainsAny(typed, ":/.") {
			return nil, cobra.ShellCompDirectiveDefault // a file
		}
		names, _ := command.CompleteArgs(env, command.Containers(), command.Containers())(cmd, args, typed)
		for i := range names {
			names[i] += ":"
		}
		return names, cobra.ShellCompDirectiveNoSpace
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	fs.BoolVarP(&o.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output during copy")
	return cmd
}

var (
	errNoDirectory   = errors.New("no such directory")
	errCopyDirectory = errors.New("cannot copy directory")
)

// splitContainer reads CONTAINER:PATH; a path of this host starts with / or . or has no colon.
func splitContainer(arg string) (container, p string) {
	if filepath.IsAbs(arg) || strings.HasPrefix(arg, ".") {
		return "", arg
	}
	c, p, ok := strings.Cut(arg, ":")
	if !ok {
		return "", arg
	}
	return c, p
}

type copying struct {
	env                    *command.Env
	client                 *client.Client
	follow, archive, quiet bool
}

// from copies out of a container. What the tar says is confined to the destination by os.Root.
func (o copying) from(ctx context.Context, ref, src, dst string) error {
	if o.follow {
		st, err := o.client.ContainerStatPath(ctx, ref, client.ContainerStatPathOptions{Path: src})
		if err != nil {
			return err
		}
		if st.Stat.Mode&os.ModeSymlink != 0 {
			if src = st.Stat.LinkTarget; !path.IsAbs(src) {
				return fmt.Errorf("%s: link target %s is not absolute", ref, src)
			}
		}
	}
	res, err := o.client.CopyFromContainer(ctx, ref, client.CopyFromContainerOptions{SourcePath: src})
	if err != nil {
		return err
	}
	defer res.Content.Close()
	if dst == "-" {
		_, err := io.Copy(o.env.Stdout, res.Content)
		return err
	}
	// The tar holds one tree, named after the source's last element. Where it goes, and under what name:
	contents := src == "." || strings.HasSuffix(src, "/.")
	info, statErr := os.Stat(dst)
	dir, name := dst, res.Stat.Name
	switch {
	case statErr == nil && info.IsDir() && contents:
		name = ""
	case statErr == nil && info.IsDir():
	case statErr == nil && res.Stat.Mode.IsDir():
		return errCopyDirectory
	case strings.HasSuffix(dst, "/") && !res.Stat.Mode.IsDir():
		return errNoDirectory
	default: // a new name
		dir, name = filepath.Dir(filepath.Clean(dst)), filepath.Base(filepath.Clean(dst))
		if _, err := os.Stat(dir); err != nil {
			if abs, err := filepath.Abs(dir); err == nil {
				dir = abs
			}
			return fmt.Errorf("invalid output path: directory %q does not exist", dir)
		}
	}
	return extract(res.Content, dir, res.Stat.Name, name, o.archive)
}

// extract unpacks the tree whose top is called top into dir, as name ("": its contents straight into dir).
func extract(r io.Reader, dir, top, name string, owners bool) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the engine's tar broke off: %w", err)
		}
		rename := func(p string) string {
			p = strings.TrimPrefix(path.Clean("/"+p), "/")
			if rest, ok := strings.CutPrefix(p+"/", top+"/"); ok && top != "" && top != "." && top != "/" {
				p = path.Join(name, rest)
			} else {
				p = path.Join(name, p)
			}
			return path.Clean(p)
		}
		p := rename(h.Name)
		mode := h.FileInfo().Mode()
		switch h.Typeflag {
		case tar.TypeDir:
			if p == "." {
				continue
			}
			if err = root.Mkdir(p, mode.Perm()|0o700); errors.Is(err, fs.ErrExist) {
				err = nil
			}
		case tar.TypeReg:
			err = writeFile(root, p, tr, mode)
		case tar.TypeSymlink:
			_ = root.Remove(p)
			err = root.Symlink(h.Linkname, p)
		case tar.TypeLink:
			_ = root.Remove(p)
			err = root.Link(rename(h.Linkname), p)
		default:
			continue // devices and fifos are not copied out
		}
		if err != nil {
			return err
		}
		if owners {
			if err := root.Lchown(p, h.Uid, h.Gid); err != nil {
				return err
			}
		}
		if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeDir {
			if err := root.Chmod(p, mode&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
				return err
			}
			_ = root.Chtimes(p, h.ModTime, h.ModTime)
		}
	}
}

func writeFile(root *os.Root, p string, r io.Reader, mode fs.FileMode) error {
	if err := root.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode.Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// to copies into a container.
func (o copying) to(ctx context.Context, ref, src, dst string) error {
	st, err := o.client.ContainerStatPath(ctx, ref, client.ContainerStatPathOptions{Path: dst})
	exists := err == nil
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if exists && st.Stat.Mode&os.ModeSymlink != 0 {
		target := st.Stat.LinkTarget
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(dst), target)
		}
		dst = target
		st, err = o.client.ContainerStatPath(ctx, ref, client.ContainerStatPathOptions{Path: dst})
		exists = err == nil
	}
	isDir := exists && st.Stat.Mode.IsDir()
	if src == "-" {
		if !isDir {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", ref, dst)
		}
		_, err := o.client.CopyToContainer(ctx, ref, client.CopyToContainerOptions{DestinationPath: dst, Content: o.env.Stdin, CopyUIDGID: o.archive})
		return err
	}
	contents := src == "." || strings.HasSuffix(src, "/.")
	trailing := strings.HasSuffix(src, "/")
	if src, err = filepath.Abs(src); err != nil {
		return err
	}
	info, err := os.Lstat(src)
	if err != nil {
		return err
	}
	if o.follow || trailing || contents {
		if src, err = filepath.EvalSymlinks(src); err != nil {
			return err
		}
		if info, err = os.Stat(src); err != nil {
			return err
		}
	}
	dir, name := dst, filepath.Base(filepath.Clean(src))
	switch {
	case isDir && contents:
		name = ""
	case isDir:
	case exists && info.IsDir():
		return errCopyDirectory
	case !exists && strings.HasSuffix(dst, "/") && !info.IsDir():
		return errNoDirectory
	default:
		dir, name = path.Dir(path.Clean(dst)), path.Base(path.Clean(dst))
	}
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(pack(pw, filepath.Clean(src), name)) }()
	defer pr.Close()
	_, err = o.client.CopyToContainer(ctx, ref, client.CopyToContainerOptions{DestinationPath: dir, Content: pr, CopyUIDGID: o.archive})
	return err
}

// pack writes src as a tar whose top is called name ("": only what is in it).
func pack(w io.Writer, src, name string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		entry := path.Join(name, filepath.ToSlash(rel))
		if entry == "." {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode()&os.ModeSocket != 0 {
			return nil
		}
		var link string
		if info.Mode()&os.ModeSymlink != 0 {
			if link, err = os.Readlink(p); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		h.Name, h.Format = entry, tar.FormatPAX
		if d.IsDir() {
			h.Name += "/"
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(tw, f)
		return err
	})
	if err != nil {
		return err
	}
	return tw.Close()
}
