package build

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"tare/internal/base/fault"
	"tare/internal/build/contents"
	"tare/internal/build/graph"
	"tare/internal/build/source"
	"tare/internal/image/compress"
)

// maxDockerfile is the largest Dockerfile or .dockerignore that is read, in bytes.
const maxDockerfile = 4 << 20

// contexts reads and keeps the files of build contexts.
type contexts struct {
	tmp      string          // for what one build reads
	contents *contents.Store // of files that peers sent
	known    known
}

// read reads the request's context, and the Dockerfile in it; .dockerignore is applied after that, so a
// Dockerfile may be excluded.
func (c *contexts) read(ctx context.Context, req *Request) (a *source.Archive, name string, dockerfile []byte, err error) {
	defer func() {
		if err != nil && a != nil {
			a.Close()
		}
	}()
	if req.Peer != nil {
		a, err = c.listed(ctx, req.Peer, "", req.Digest)
		return a, cmp.Or(req.Dockerfile, "Dockerfile"), req.Text, err
	}
	switch {
	case req.Remote != "":
		a, err = c.remote(ctx, req)
	case req.Context != nil:
		a, err = source.Read(ctx, req.Context, c.tmp, source.Root)
	default:
		err = fault.Invalid("a build needs a context")
	}
	if err != nil {
		return nil, "", nil, err
	}
	name = req.Dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	dockerfile, err = source.ReadFile(a, name, maxDockerfile)
	if errors.Is(err, fs.ErrNotExist) && req.Dockerfile == "" {
		dockerfile, err = source.ReadFile(a, "dockerfile", maxDockerfile)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return a, name, nil, fault.Invalid("Cannot locate specified Dockerfile: %s", name)
	}
	if err != nil {
		return a, name, nil, fault.Invalid("cannot read Dockerfile %s: %w", name, err)
	}
	ignore, err := source.ReadFile(a, name+".dockerignore", maxDockerfile)
	if errors.Is(err, fs.ErrNotExist) {
		ignore, err = source.ReadFile(a, ".dockerignore", maxDockerfile)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return a, name, nil, err
	}
	patterns, err := source.Patterns(ignore)
	if err != nil {
		return a, name, nil, fault.Invalid("invalid .dockerignore: %w", err)
	}
	return a, name, dockerfile, a.Prune(patterns)
}

// remote fetches a context: a tar, or anything else as the Dockerfile.
func (c *contexts) remote(ctx context.Context, req *Request) (*source.Archive, error) {
	url := req.Remote
	if graph.IsGit(url) {
		r, err := source.ParseRepository(url)
		if err != nil {
			return nil, err
		}
		return source.Clone(ctx, r, c.tmp, "", false)
	}
	if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		return nil, fault.Invalid("remote context %s is not supported: only git repositories, and http and https URLs of a Dockerfile or a tar are", url)
	}
	body, _, err := fetch(ctx, url)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	r := bufio.NewReaderSize(body, 64<<10)
	head, _ := r.Peek(512)
	if compress.Detect(head) != compress.None || len(head) > 262 && string(head[257:262]) == "ustar" {
		return source.Read(ctx, r, c.tmp, source.Root)
	}
	req.Dockerfile = "Dockerfile"
	return source.File(c.tmp, "Dockerfile", io.LimitReader(r, maxDockerfile), 0o644, time.Now())
}

// fetch starts a download.
func fetch(ctx context.Context, url string) (io.ReadCloser, time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, time.Time{}, fault.Invalid("invalid URL %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, time.Time{}, fault.Unavailable("cannot fetch %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, time.Time{}, fault.Invalid("failed to GET %s with status %s", url, resp.Status)
	}
	at, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil {
		at = time.Unix(0, 0)
	}
	return resp.Body, at, nil
}

// fileOf is the name that a downloaded file gets, "" if the URL has none.
func fileOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	rest, _, _ = strings.Cut(rest, "#")
	rest, _, _ = strings.Cut(rest, "?")
	_, p, _ := strings.Cut(rest, "/")
	if base := path.Base(p); p != "" && !strings.HasSuffix(p, "/") && base != "." && base != ".." {
		return base
	}
	return ""
}
