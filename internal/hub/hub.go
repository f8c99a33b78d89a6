// Package hub is the registry server: the OCI distribution API (distribution-spec
// 1.1) over one folder. The disk is all there is: every answer comes from the files below, so killing the process loses nothing that
// was acknowledged. A manifest is acknowledged when it and all its blobs are on the disk (settling.go), so
// a power cut loses no image either.
//
//	blob        content by digest, stored once for all repositories
//	link        an empty file that makes a blob part of a repository; without it the blob is not readable there
//	upload      a blob that is arriving; it survives a restart
//	referrer    a manifest whose subject is another manifest
//	pin         somebody is about to push a manifest with this blob: it is no garbage yet
//	call        one request and what is known of it; what it asks for is served by a blobCall, uploadCall, manifestCall, discovery or tokenCall
//	guard       who makes a call, and whether that one may
//	layout      where things lie on the disk; the shelf reads and writes them
//	cache       a part of the registry that another registry fills (cache.go); a pullThrough is a call for something of it
//
// On disk, below the root (which is an OCI image layout for blobs):
//
//	oci-layout, index.json, blobs/sha256/…, ingest/
//	unsettled/                                 marks of blobs that may not have reached the disk
//	uploads/<id>                               the bytes so far; the first line of <id>.repository is its owner
//	repositories/<name>/_blobs/<alg>/<hex>     links
//	repositories/<name>/_manifests/<alg>/<hex> a manifest's record (JSON); its time is that of the last pull, within an hour
//	repositories/<name>/_tags/<tag>            the digest a tag stands for
//	repositories/<name>/_referrers/<alg>-<hex>/<alg>-<hex>  descriptors by subject
//	repositories/<name>/_upstream/<alg>/<hex>  blobs that a cache may fetch
//	accounts.json, token.key, webhooks/        of the packages access and notify
//
// Locks: links is held shared by everything that adds a link and exclusively by what removes a blob, so
// that no blob disappears between the check and the link. An upload's lock comes before it, those of index, memory,
// pins and tags after it.
package hub

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/files"
	"tare/internal/hub/access"
	"tare/internal/hub/audit"
	"tare/internal/hub/config"
	"tare/internal/hub/limit"
	"tare/internal/hub/notify"
	"tare/internal/image/blob"
)

// Hub is the registry of one folder. It is an http.Handler.
type Hub struct {
	*shelf
	*sessions
	config *config.Config
	log    *slog.Logger
	lock   *os.File
	links  sync.RWMutex // see the package comment
	tags   [64]sync.Mutex

	access   *access.Control // nil: everybody may do everything
	audit    *audit.Log
	hooks    *notify.Sender
	meters   *meters
	rate     *limit.Rate
	failures *limit.Rate // of logins
	gate     *limit.Gate // of bodies
	caches   []*cache
	pins     *pins
	settling *settling

	collecting sync.Mutex // guards orphansAt; one run at a time
	orphansAt  time.Time

	stop  context.CancelFunc // ends gc and fills
	tasks sync.WaitGroup
}

// Open uses (and makes) root, which only one Hub may use at a time, for everybody. log may be nil.
func Open(root string, log *slog.Logger) (*Hub, error) {
	return New(&config.Config{Root: root}, log)
}

// New opens a registry as it is configured. log may be nil.
func New(c *config.Config, log *slog.Logger) (*Hub, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c.Complete()
	for _, dir := range []string{"uploads", "repositories"} {
		if err := os.MkdirAll(filepath.Join(c.Root, dir), 0o755); err != nil {
			return nil, fmt.Errorf("cannot open registry %s: %w", c.Root, err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(c.Root, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open registry %s: %w", c.Root, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("cannot open registry %s: another registry serves it (%w)", c.Root, err)
	}
	h := &Hub{shelf: newShelf(c.Root), config: c, log: log, lock: lock, pins: newPins(c.GC.Grace.Std()),
		sessions: &sessions{dir: filepath.Join(c.Root, "uploads"), uploads: map[string]*upload{}},
		rate:     limit.NewRate(c.Limits.Rate, c.Limits.Burst), failures: limit.NewRate(0.5, 20),
		gate: &limit.Gate{All: c.Limits.Uploads, Each: c.Limits.UploadsPerClient}}
	if err := h.open(); err != nil {
		h.Close()
		return nil, fmt.Errorf("cannot open registry %s: %w", c.Root, err)
	}
	return h, nil
}

func (h *Hub) open() (err error) {
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	if h.blobs, err = blob.Open(h.root); err != nil {
		return err
	}
	for name, content := range map[string]string{
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"index.json": `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	} {
		path := filepath.Join(h.root, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := files.Write(path, []byte(content+"\n"), 0o644, files.Synced); err != nil {
			return err
		}
	}
	for _, alg := range []string{"sha256", "sha512"} {
		if err := files.Sweep(filepath.Join(h.root, "blobs", alg)); err != nil {
			return err
		}
	}
	if err := h.sweep(h.config.GC.Uploads.Std()); err != nil {
		return err
	}
	if err := h.openSettling(); err != nil {
		return err
	}
	if err := h.load(); err != nil {
		return err
	}
	if h.access, err = access.Open(h.root, h.config); err != nil {
		return err
	}
	if h.audit, err = audit.Open(h.config.Audit.File); err != nil {
		return err
	}
	if h.hooks, err = notify.Open(h.root, h.config.Webhooks, h.log); err != nil {
		return err
	}
	h.caches = openCaches(ctx, h)
	h.meters = newMeters(h)
	if h.config.GC.Interval > 0 {
		h.tasks.Go(func() { h.collectForever(ctx) })
	}
	return nil
}

// openSettling verifies the blobs that a power cut may have torn, before anybody may read them.
func (h *Hub) openSettling() error {
	s, suspects, err := openSettling(filepath.Join(h.root, "unsettled"))
	if err != nil {
		return err
	}
	h.settling = s
	for _, d := range suspects {
		if f, err := h.blobs.Reader(d); err == nil {
			got, err := d.Algorithm().FromReader(f)
			f.Close()
			if err != nil {
				return err
			}
			if got != d {
				h.log.Warn("a power cut tore a blob; it is removed and has to be pushed again", "blob", d)
				if err := h.blobs.Remove(d); err != nil {
					return err
				}
			}
		}
		if err := s.marks.Clear(flat(d)); err != nil {
			return err
		}
	}
	return nil
}

// Reopen starts a new audit log where the old one was moved away.
func (h *Hub) Reopen() error { return h.audit.Reopen() }

// Close ends the use of the folder. Requests have to be over.
func (h *Hub) Close() error {
	if h.stop != nil {
		h.stop()
	}
	h.tasks.Wait()
	if h.settling != nil {
		h.settling.close()
	}
	h.hooks.Close()
	if h.blobs != nil {
		h.blobs.Close()
	}
	if err := h.audit.Close(); err != nil {
		h.log.Error("cannot close audit log", "error", err)
	}
	return h.lock.Close()
}

// ServeHTTP answers one request, counts and logs it.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, start: time.Now()}
	h.meters.busy.Add(1)
	defer func() {
		h.meters.busy.Add(-1)
		h.meters.count(rec, r)
		rec.log(h.log, r)
	}()
	(&call{Hub: h, w: rec, r: r}).serve()
}
