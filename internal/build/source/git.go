package source

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Repository is what a git source's name says.
type Repository struct {
	URL    string
	Ref    string // branch, tag or commit; "" is the remote's HEAD
	Subdir string
}

// ParseRepository reads URL[#ref[:dir]], and the query's ref, branch, tag, commit and subdir.
func ParseRepository(name string) (Repository, error) {
	rest, fragment, _ := strings.Cut(name, "#")
	r := Repository{URL: rest}
	r.Ref, r.Subdir, _ = strings.Cut(fragment, ":")
	if u, query, ok := strings.Cut(rest, "?"); ok && strings.Contains(u, "://") {
		r.URL = u
		for kv := range strings.SplitSeq(query, "&") {
			switch k, v, _ := strings.Cut(kv, "="); k {
			case "ref", "branch", "tag", "commit", "checksum":
				r.Ref = v
			case "subdir":
				r.Subdir = v
			default:
				return r, fault.Invalid("unknown query %q of the git source %s", k, name)
			}
		}
	}
	if strings.HasPrefix(r.URL, "-") || strings.HasPrefix(r.Ref, "-") || strings.ContainsAny(r.Ref, " ~^:?*[\\\x00\n") || strings.Contains(r.Ref, "..") {
		return r, fault.Invalid("invalid git source %s", name)
	}
	if host, p, ok := strings.Cut(r.URL, ":"); ok && strings.HasPrefix(host, "git@") && !strings.Contains(r.URL, "://") && p == "" {
		return r, fault.Invalid("invalid git source %s", name)
	}
	return r, nil
}

// Clone fetches a repository with the host's git, and its submodules, into an archive whose spool is made in dir. commit is its
// name's beginning, if it is known; keep keeps .git.
func Clone(ctx context.Context, r Repository, dir, commit string, keep bool) (*Archive, error) {
	program, err := exec.LookPath("git")
	if err != nil {
		return nil, fault.Unavailable("cannot fetch %s: the engine's host has no git", r.URL)
	}
	work, err := os.MkdirTemp(dir, "git-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	home, tree := filepath.Join(work, "home"), filepath.Join(work, "tree")
	for _, d := range []string{home, tree} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	git := func(args ...string) (string, error) {
		// No configuration of the host's, no hooks, no programs named by a repository, no questions.
		all := append([]string{"-C", tree, "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "protocol.file.allow=never",
			"-c", "core.fsmonitor=false", "-c", "credential.helper=", "-c", "advice.detachedHead=false", "-c", "core.symlinks=true"}, args...)
		cmd := exec.CommandContext(ctx, program, all...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true",
			"GIT_SSH_COMMAND=ssh -oBatchMode=yes", "LC_ALL=C", "https_proxy=" + os.Getenv("https_proxy"), "http_proxy=" + os.Getenv("http_proxy"),
			"no_proxy=" + os.Getenv("no_proxy")}
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr, cmd.Cancel = &out, &errs, func() error { return cmd.Process.Signal(unix.SIGTERM) }
		cmd.WaitDelay = 5 * time.Second
		if err := cmd.Run(); err != nil {
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
			return "", fault.Invalid("failed to fetch git repository %s: %s", r.URL, lines[len(lines)-1])
		}
		return strings.TrimSpace(out.String()), nil
	}
	if _, err := git("init", "-q"); err != nil {
		return nil, err
	}
	if _, err := git("remote", "add", "origin", r.URL); err != nil {
		return nil, err
	}
	want := r.Ref
	if want == "" {
		want = "HEAD"
	}
	if _, err := git("fetch", "-q", "--depth=1", "origin", want); err != nil {
		// A server may refuse to give a single commit by its name.
		if _, all := git("fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"); all != nil {
			return nil, err
		}
		if _, err := git("checkout", "-q", want, "--"); err != nil {
			return nil, err
		}
	} else if _, err := git("checkout", "-q", "FETCH_HEAD"); err != nil {
		return nil, err
	}
	head, err := git("rev-parse", "HEAD")
	if err != nil {
		return nil, err
	}
	if commit != "" && !strings.HasPrefix(head, commit) {
		return nil, fault.Invalid("expected checksum to match %s, got %s", commit, head)
	}
	if _, err := git("submodule", "update", "-q", "--init", "--recursive", "--depth=1"); err != nil {
		return nil, err
	}
	if keep {
		// What depends on when and where the clone was made would be another content each time.
		for _, f := range []string{"index", "FETCH_HEAD", "logs", "hooks"} {
			if err := os.RemoveAll(filepath.Join(tree, ".git", f)); err != nil {
				return nil, err
			}
		}
	} else if err := os.RemoveAll(filepath.Join(tree, ".git")); err != nil {
		return nil, err
	}
	return fromDir(ctx, tree, r.Subdir, dir)
}

// fromDir makes an archive of what lies in a folder below base; everything is 0:0 and has the time 0.
func fromDir(ctx context.Context, base, sub, spools string) (_ *Archive, err error) {
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if sub = strings.Trim(filepath.Clean("/"+sub), "/"); sub != "" {
		inner, err := root.OpenRoot(sub)
		if err != nil {
			return nil, fault.Invalid("no folder %s in the git repository", sub)
		}
		defer inner.Close()
		root = inner
	}
	a := New()
	if a.spool, err = spool(spools); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	l := newLoader(a, Root)
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		parent, err := a.parent("/" + filepath.Dir(p))
		if err != nil {
			return err
		}
		n := &node{Entry: Entry{Path: "/" + p, Name: d.Name(), Mode: info.Mode(), ModTime: time.Unix(0, 0)}}
		switch {
		case d.IsDir():
			n.children = map[string]*node{}
		case info.Mode()&fs.ModeSymlink != 0:
			n.Mode = fs.ModeSymlink | 0o777
			if n.Link, err = root.Readlink(p); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			f, err := root.Open(p)
			if err != nil {
				return err
			}
			err = l.store(n, f)
			f.Close()
			if err != nil {
				return err
			}
		default:
			return nil
		}
		parent.children[n.Name] = n
		a.count++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a, l.w.Flush()
}
