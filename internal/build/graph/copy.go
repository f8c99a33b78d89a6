package graph

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/opencontainers/go-digest"
)

func (b *builder) copy(s *stage, c *instructions.CopyCommand, current int) (string, error) {
	op := Copy{Word: "COPY", From: Source{Context: true}, Owner: c.Chown, Mode: c.Chmod, Parents: c.Parents, Exclude: c.ExcludePatterns, Link: c.Link}
	step := Step{Epoch: s.epoch, Parent: s.step}
	if c.From != "" {
		var err error
		if op.From, err = b.source(&step, c.From, current); err != nil {
			return "", err
		}
	}
	return b.files(s, step, op, c.SourcesAndDest)
}

func (b *builder) addFiles(s *stage, c *instructions.AddCommand) (string, error) {
	op := Copy{Word: "ADD", From: Source{Context: true}, Owner: c.Chown, Mode: c.Chmod, Exclude: c.ExcludePatterns, Extract: true, Link: c.Link, KeepGit: c.KeepGitDir != nil && *c.KeepGitDir}
	remote, git := false, false
	for _, src := range c.SourcePaths {
		remote, git = remote || isURL(src) && !IsGit(src), git || IsGit(src)
	}
	if op.KeepGit && !git {
		return "", fmt.Errorf("--keep-git-dir only works with git sources")
	}
	if c.Unpack != nil {
		op.Extract, op.Unpack = *c.Unpack, *c.Unpack
	}
	if c.Checksum != "" && git && len(c.SourcePaths) == 1 {
		return b.gitAt(s, op, c)
	}
	if c.Checksum != "" {
		if len(c.SourcePaths) != 1 {
			return "", fmt.Errorf("checksum can't be specified for multiple sources")
		}
		if !remote {
			return "", fmt.Errorf("checksum requires HTTP(S) or Git sources")
		}
		d, err := digest.Parse(c.Checksum)
		if err != nil {
			return "", fmt.Errorf("invalid checksum %s: %w", c.Checksum, err)
		}
		op.Sum = d
	}
	return b.files(s, Step{Epoch: s.epoch, Parent: s.step}, op, c.SourcesAndDest)
}

// gitAt adds a git repository whose commit is given as the checksum.
func (b *builder) gitAt(s *stage, op Copy, c *instructions.AddCommand) (string, error) {
	if n := len(c.Checksum); strings.Trim(c.Checksum, "0123456789abcdef") != "" || n < 7 || n > 64 {
		return "", fmt.Errorf("invalid checksum %s: not a commit", c.Checksum)
	}
	op.Commit = c.Checksum
	return b.files(s, Step{Epoch: s.epoch, Parent: s.step}, op, c.SourcesAndDest)
}

// files finishes COPY and ADD: sources, destination, history.
func (b *builder) files(s *stage, step Step, op Copy, sd instructions.SourcesAndDest) (string, error) {
	by := op.Word
	if op.Parents {
		by += " --parents"
	}
	if op.Link {
		by += " --link"
	}
	if op.Owner != "" {
		by += " --chown=" + op.Owner
	}
	if op.Mode != "" {
		by += " --chmod=" + op.Mode
		if err := checkMode(op.Mode); err != nil {
			return "", err
		}
	}
	for _, src := range sd.SourcePaths {
		by += " " + src
		switch {
		case IsGit(src):
			if op.Word == "COPY" {
				return "", fmt.Errorf("source can't be a git ref for COPY")
			}
			op.URLs = append(op.URLs, src)
		case isURL(src):
			if op.Word == "COPY" {
				return "", fmt.Errorf("source can't be a URL for COPY")
			}
			op.URLs = append(op.URLs, src)
		default:
			if outside(src) {
				return "", fmt.Errorf("%s failed: forbidden path outside the build context: %s ()", op.Word, src)
			}
			op.Paths = append(op.Paths, sourcePath(src, op.Parents))
		}
	}
	for _, f := range sd.SourceContents {
		by += " <<" + f.Path
		op.Inline = append(op.Inline, Inline{Name: path.Base(path.Join("/", f.Path)), Data: f.Data})
	}
	by += " " + sd.DestPath
	if n := len(op.Paths) + len(op.URLs) + len(op.Inline); n > 1 && !strings.HasSuffix(sd.DestPath, "/") && path.Base(sd.DestPath) != "." && path.Base(sd.DestPath) != ".." {
		return "", fmt.Errorf("When using %s with more than one source file, the destination must be a directory and end with a /", op.Word)
	}
	op.Dest = s.path(sd.DestPath)
	if last := path.Base(sd.DestPath); sd.DestPath == "" || strings.HasSuffix(sd.DestPath, "/") || last == "." || last == ".." {
		op.Dest = strings.TrimSuffix(op.Dest, "/") + "/"
	}
	step.About, step.Op = by, op
	s.step = b.add(step)
	return by + " # buildkit", nil
}

// sourcePath makes a source absolute; with --parents the pivot "/./" is kept.
func sourcePath(src string, parents bool) string {
	if before, after, ok := strings.Cut(src, "/./"); parents && ok {
		return path.Join("/", before) + "/./" + strings.TrimPrefix(path.Join("/", after), "/")
	}
	return path.Join("/", src)
}

// outside tells whether a relative path climbs over its root.
func outside(src string) bool {
	c := path.Clean(src)
	return c == ".." || strings.HasPrefix(c, "../")
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// IsGit tells a git repository from other sources by its name.
func IsGit(s string) bool {
	if strings.HasPrefix(s, "git://") || strings.HasPrefix(s, "git@") || strings.HasPrefix(s, "ssh://") {
		return true
	}
	s, _, _ = strings.Cut(s, "#")
	s, _, _ = strings.Cut(s, "?")
	return isURL(s) && strings.HasSuffix(s, ".git")
}

// checkMode looks at --chmod: octal, or chmod(1)'s letters.
func checkMode(mode string) error {
	m, err := strconv.ParseUint(mode, 8, 32)
	switch {
	case err == nil && m <= 0o7777:
		return nil
	case err == nil || strings.Trim(mode, "0123456789") == "":
		return fmt.Errorf("invalid chmod parameter: '%v'. it should be octal string and between 0 and 07777", mode)
	}
	for clause := range strings.SplitSeq(mode, ",") {
		who := strings.TrimLeft(clause, "ugoa")
		if who == "" || strings.IndexByte("+-=", who[0]) < 0 || strings.Trim(who, "+-=rwxXstugo") != "" {
			return fmt.Errorf("invalid chmod parameter: '%v'", mode)
		}
	}
	return nil
}
