package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/singleflight"

	"tare/internal/base/fault"
	"tare/internal/hub/audit"
	"tare/internal/hub/config"
)

// A cache is filled by pulls: what is not here, or was not asked about for a while, is asked of upstream. A tag that is here is
// served, with a Warning, when upstream is down, refuses or answers 429. Blobs come while they are sent on, and
// each comes once, however many ask for it. Only blobs that a cached manifest names are fetched.

// downFor is how long upstream is left alone after it failed, for tags that are here.
const downFor = 20 * time.Second

// firstTimeout bounds the fetch of a manifest that is not here.
const firstTimeout = 2 * time.Minute

// cache is a part of the registry that another registry fills.
type cache struct {
	config.Cache
	h      *Hub
	ctx    context.Context // ends with the registry
	source source
	flight singleflight.Group

	mu      sync.Mutex           // guards all below
	checked map[string]time.Time // when upstream was last asked, by repository:tag
	down    time.Time            // upstream failed; it is not asked before this time
	why     string
	fills   map[digest.Digest]*fillUp
}

// source is the registry behind a cache (package upstream).
type source interface {
	Digest(ctx context.Context, repository, tag string) (digest.Digest, error)
	Manifest(ctx context.Context, repository, ref string) ([]byte, ocispec.Descriptor, error)
	Blob(ctx context.Context, repository string, d ocispec.Descriptor) (io.ReadCloser, error)
}

// Source puts the registry behind one of the configured caches in its place; without it the cache has only what is here. It is called before the first
// request.
func (h *Hub) Source(prefix string, u source) {
	for _, k := range h.caches {
		if k.Prefix == prefix {
			k.source = u
		}
	}
}

func openCaches(ctx context.Context, h *Hub) []*cache {
	var all []*cache
	for _, c := range h.config.Caches {
		all = append(all, &cache{Cache: c, h: h, ctx: ctx, source: nowhere{}, checked: map[string]time.Time{}, fills: map[digest.Digest]*fillUp{}})
	}
	return all
}

// nowhere is upstream where there is none.
type nowhere struct{}

var errNowhere = fault.Unavailable("the registry behind this cache is not known")

func (nowhere) Digest(context.Context, string, string) (digest.Digest, error) { return "", errNowhere }

func (nowhere) Manifest(context.Context, string, string) ([]byte, ocispec.Descriptor, error) {
	return nil, ocispec.Descriptor{}, errNowhere
}

func (nowhere) Blob(context.Context, string, ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, errNowhere
}

// cacheOf finds the cache that a repository belongs to: the one with the longest prefix.
func (h *Hub) cacheOf(name string) *cache {
	var best *cache
	for _, k := range h.caches {
		if (k.Prefix == "" || strings.HasPrefix(name, k.Prefix+"/")) && (best == nil || len(k.Prefix) > len(best.Prefix)) {
			best = k
		}
	}
	return best
}

func (k *cache) readOnly(name string) *refusal {
	return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "%s is a cache of %s: push there", name, k.Upstream)
}

// theirs is a repository's name upstream.
func (k *cache) theirs(name string) string {
	if k.Prefix == "" {
		return name
	}
	return strings.TrimPrefix(name, k.Prefix+"/")
}

// pullThrough is a call for something of a cache.
type pullThrough struct {
	*call
	k *cache
}

// refresh makes what c asks for be here, if upstream has it, and a tag be as new as configured.
func (c pullThrough) refresh() error {
	local, err := c.resolve(c.name, c.arg)
	here := err == nil
	byDigest := strings.Contains(c.arg, ":")
	if byDigest {
		if _, err := parseDigest(c.arg); err != nil {
			return err
		}
	} else if !tagPattern.MatchString(c.arg) {
		return manifestUnknown(c.arg)
	}
	key := c.name + ":" + c.arg
	c.k.mu.Lock()
	fresh := here && (byDigest || time.Since(c.k.checked[key]) < c.k.Fresh.Std())
	down, why := time.Now().Before(c.k.down), c.k.why
	c.k.mu.Unlock()
	if fresh {
		c.meters.upstream.Add(1, c.k.Prefix, "fresh")
		return nil
	}
	if here && down {
		return c.stale(why)
	}
	result := c.k.flight.DoChan(key, func() (any, error) {
		// The work goes on for others when this client leaves.
		timeout := firstTimeout
		if here {
			timeout = c.k.Timeout.Std()
		}
		ctx, cancel := context.WithTimeout(c.k.ctx, timeout)
		defer cancel()
		return nil, c.k.update(ctx, c.name, c.arg, local)
	})
	select {
	case <-c.r.Context().Done():
		return c.r.Context().Err()
	case r := <-result:
		err = r.Err
	}
	switch {
	case err == nil:
		c.meters.upstream.Add(1, c.k.Prefix, "fetched")
		return nil
	case errdefs.IsNotFound(err):
		return manifestUnknown(c.arg)
	case here:
		return c.stale(err.Error())
	}
	c.meters.upstream.Add(1, c.k.Prefix, "failed")
	switch {
	case errdefs.IsPermissionDenied(err): // registries say so of what they don't have
		return manifestUnknown(c.arg)
	case errdefs.IsResourceExhausted(err):
		return c.tooMany(downFor, "%s: %v", c.k.Upstream, err)
	case errors.Is(err, context.DeadlineExceeded), errdefs.IsInvalidArgument(err):
		return refuse(http.StatusBadGateway, "UNKNOWN", "%s: %v", c.k.Upstream, err)
	}
	return err
}

// stale serves what is here all the same.
func (c pullThrough) stale(why string) error {
	c.meters.upstream.Add(1, c.k.Prefix, "stale")
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == '"' || r == '\\' || r > '~' {
			return ' '
		}
		return r
	}, why)
	c.w.Header().Set("Warning", `299 - "`+c.k.Upstream+" was not asked or did not answer, this is the cached tag: "+clean[:min(len(clean), 500)]+`"`)
	return nil
}

// update asks upstream for a tag or digest and stores the answer, if it is another than local.
func (k *cache) update(ctx context.Context, name, arg string, local digest.Digest) (err error) {
	defer func() {
		if err == nil || errdefs.IsNotFound(err) || k.ctx.Err() != nil {
			return
		}
		k.h.log.Warn("upstream failed", "upstream", k.Upstream, "repository", name, "reference", arg, "error", err)
		k.mu.Lock()
		k.down, k.why = time.Now().Add(downFor), err.Error()
		k.mu.Unlock()
	}()
	isTag := !strings.Contains(arg, ":")
	if isTag && local != "" {
		// Registries count pulls by GET, not by HEAD.
		if d, err := k.source.Digest(ctx, k.theirs(name), arg); err != nil {
			return err
		} else if d == local {
			k.asked(name, arg)
			return nil
		}
	}
	data, d, err := k.source.Manifest(ctx, k.theirs(name), arg)
	if err != nil {
		return err
	}
	m, err := parseManifest(data, d.MediaType)
	if err != nil {
		return err
	}
	if err := k.store(name, d.Digest, m, data); err != nil {
		return err
	}
	if isTag {
		k.h.links.RLock()
		defer k.h.links.RUnlock()
		if err := k.h.setTag(name, arg, d.Digest); err != nil {
			return err
		}
		k.asked(name, arg)
	}
	return nil
}

func (k *cache) asked(name, tag string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.checked) > 100_000 {
		clear(k.checked)
	}
	k.checked[name+":"+tag] = time.Now()
	k.down = time.Time{}
}

// store keeps a manifest, and notes which blobs it has.
func (k *cache) store(name string, d digest.Digest, m *manifest, data []byte) error {
	k.h.links.RLock()
	defer k.h.links.RUnlock()
	parts := m.Layers
	if m.Config != nil {
		parts = append(parts[:len(parts):len(parts)], *m.Config)
	}
	for _, p := range parts {
		path := k.h.upstreamLink(name, p.Digest)
		if exists(path) {
			continue
		}
		if err := makeDirs(filepath.Dir(path)); err != nil {
			return err
		}
		if err := os.WriteFile(path, strconv.AppendInt(nil, p.Size, 10), 0o644); err != nil {
			return err
		}
	}
	return k.h.storeManifest(name, d, m, data)
}

// fillUp is a blob that comes from upstream.
type fillUp struct {
	d    ocispec.Descriptor
	path string
	done chan struct{} // closed when it is here, or failed

	mu      sync.Mutex // guards all below
	size    int64      // that has come
	err     error
	changed chan struct{}
}

func (f *fillUp) progress(size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size = size
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fillUp) end(err error) {
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
	close(f.done)
}

// fetchBlob serves a blob that is not here yet.
func (c pullThrough) fetchBlob(d digest.Digest) error {
	text, err := os.ReadFile(c.upstreamLink(c.name, d))
	if err != nil {
		return blobUnknown(c.arg) // no manifest that came through here has it
	}
	size, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return fmt.Errorf("record of %s in %s: %w", d, c.name, err)
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", `"`+d.String()+`"`)
	if c.r.Method == http.MethodHead {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
		h.Set("Accept-Ranges", "bytes")
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	if here, err := c.adopt(d); err != nil {
		return err
	} else if here {
		return blobCall{c.call}.get()
	}
	f, err := c.k.fill(c.name, ocispec.Descriptor{Digest: d, Size: size})
	if err != nil {
		return err
	}
	if c.r.Header.Get("Range") != "" {
		select {
		case <-f.done:
		case <-c.r.Context().Done():
			return c.r.Context().Err()
		}
	}
	file, err := os.Open(f.path)
	if err != nil {
		<-f.done
		if f.err != nil {
			return f.err
		}
		if file, err = c.blobs.Reader(d); err != nil {
			return err
		}
	}
	defer file.Close()
	select {
	case <-f.done:
		if f.err != nil {
			return f.err
		}
		return blobCall{c.call}.send(file, d.String())
	default:
	}
	return c.follow(f, file)
}

// adopt links a blob that another repository has. Upstream has it in this one, too, or its manifest would not say so.
func (c pullThrough) adopt(d digest.Digest) (bool, error) {
	c.links.RLock()
	defer c.links.RUnlock()
	if !exists(c.blobs.Path(d)) || !c.index.used(d) {
		return false, nil
	}
	return true, c.linkBlob(c.name, d)
}

// follow sends a file that grows. The last byte waits until the whole is verified; a failure cuts the connection, so that nobody takes
// a part, or something wrong, for the whole.
func (c pullThrough) follow(f *fillUp, file *os.File) error {
	c.w.Header().Set("Content-Length", strconv.FormatInt(f.d.Size, 10))
	for sent, over := int64(0), false; sent < f.d.Size; {
		f.mu.Lock()
		have, changed := min(f.size, f.d.Size-1), f.changed
		f.mu.Unlock()
		if over {
			have = f.d.Size
		}
		if have > sent {
			n, err := io.CopyN(c.w, file, have-sent)
			if sent += n; err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-f.done:
			if f.err != nil {
				return f.err
			}
			over = true
		case <-c.r.Context().Done():
			return c.r.Context().Err()
		}
	}
	c.happened(audit.Entry{Action: "pull", Object: "blob", Digest: f.d.Digest.String(), Bytes: f.d.Size}, "")
	return nil
}

// fill starts the download of a blob, or joins the one that is under way.
func (k *cache) fill(name string, d ocispec.Descriptor) (*fillUp, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.fills[d.Digest]; f != nil {
		return f, nil
	}
	if min := int64(k.h.config.Limits.Free); min > 0 && k.h.free() < min+d.Size {
		return nil, errNoSpace
	}
	u, err := k.h.sessions.start(name)
	if err != nil {
		return nil, err
	}
	f := &fillUp{d: d, path: u.path, done: make(chan struct{}), changed: make(chan struct{})}
	k.fills[d.Digest] = f
	u.busy <- struct{}{} // nobody else knows it
	k.h.tasks.Go(func() {
		err := k.download(u, f)
		if err != nil {
			k.h.log.Warn("upstream failed", "upstream", k.Upstream, "repository", name, "blob", d.Digest, "error", err)
			k.h.forget(u)
		}
		u.unlock()
		k.mu.Lock()
		delete(k.fills, d.Digest)
		k.mu.Unlock()
		f.end(err)
	})
	return f, nil
}

func (k *cache) download(u *upload, f *fillUp) error {
	body, err := k.source.Blob(k.ctx, k.theirs(u.name), f.d)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := u.receive(body, f.d.Size, f.progress); err != nil {
		return err
	}
	return k.h.commit(u, f.d.Digest)
}
