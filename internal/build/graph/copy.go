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
	op := Copy{Word: "COPY", From: Source{Context: true}, Owner: c.Chown, Mode: c.Chmod, Parents: c.Parents, Exclude: c.ExcludePatterns}
	step := Step{Parent: s.step}
	if c.From != "" {
		from, err := b.from(c.From, current)
		if err != nil {
			return "", err
		}
		op.From = Source{}
		step.Inputs = []int{from}
	}
	return b.files(s, step, op, c.SourcesAndDest)
}

func (b *builder) addFiles(s *stage, c *instructions.AddCommand) (string, error) {
	op := Copy{Word: "ADD", From: Source{Context: true}, Owner: c.Chown, Mode: c.Chmod, Exclude: c.ExcludePatterns, Extract: true}
	if c.KeepGitDir != nil {
		return "", fmt.Errorf("ADD --keep-git-dir is not supported: git sources are not")
	}
	remote := false
	for _, src := range c.SourcePaths {
		remote = remote || isURL(src)
	}
	if c.Unpack != nil {
		if *c.Unpack && remote {
			return "", fmt.Errorf("ADD --unpack of a URL is not supported")
		}
		op.Extract = *c.Unpack
	}
	if c.Checksum != "" {
		if len(c.SourcePaths) != 1 || !remote {
			return "", fmt.Errorf("ADD --checksum requires one HTTP(S) source")
		}
		d, err := digest.Parse(c.Checksum)
		if err != nil {
			return "", fmt.Errorf("invalid checksum %s: %w", c.Checksum, err)
		}
		op.Sum = d
	}
	return b.files(s, Step{Parent: s.step}, op, c.SourcesAndDest)
}

// files finishes COPY and ADD: sources, destination, history.
func (b *builder) files(s *stage, step Step, op Copy, sd instructions.SourcesAndDest) (string, error) {
	by := op.Word
	if op.Parents {
		by += " --parents"
	}
	if op.Owner != "" {
		by += " --chown=" + op.Owner
	}
	if op.Mode != "" {
		by += " --chmod=" + op.Mode
		if m, err := strconv.ParseUint(op.Mode, 8, 32); err != nil || m > 0o7777 {
			return "", fmt.Errorf("invalid chmod parameter: '%v'. it should be octal string and between 0 and 07777", op.Mode)
		}
	}
	for _, src := range sd.SourcePaths {
		by += " " + src
		switch {
		case isGit(src):
			if op.Word == "COPY" {
				return "", fmt.Errorf("source can't be a git ref for COPY")
			}
			return "", fmt.Errorf("ADD of a git repository is not supported: %s", src)
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

func isGit(s string) bool {
	if strings.HasPrefix(s, "git://") || strings.HasPrefix(s, "git@") || strings.HasPrefix(s, "ssh://") {
		return true
	}
	s, _, _ = strings.Cut(s, "#")
	return isURL(s) && strings.HasSuffix(s, ".git")
}
