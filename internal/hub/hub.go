// Package hub is the registry server: the OCI distribution API (distribution-spec
// 1.1) over one folder. Nothing is acknowledged before it is on the disk, and the disk is all
// there is: every answer comes from the files below, so a restart loses nothing.
//
//	blob        content by digest, stored once for all repositories
//	link        an empty file that makes a blob part of a repository; without it the blob is not readable there
//	upload      a blob that is arriving; it survives a restart
//	referrer    a manifest whose subject is another manifest
//
// On disk, below the root (which is an OCI image layout for blobs):
//
//	oci-layout, index.json, blobs/sha256/…, ingest/
//	uploads/<id>                               the bytes so far; the first line of <id>.repository is its owner
//	repositories/<name>/_blobs/<alg>/<hex>     links
//	repositories/<name>/_manifests/<alg>/<hex> a manifest's descriptor (JSON)
//	repositories/<name>/_tags/<tag>            the digest a tag stands for
//	repositories/<name>/_referrers/<alg>-<hex>/<alg>-<hex>  descriptors by subject
//
// Locks: links is held shared by everything that adds a link and exclusively by what removes a blob, so
// that no blob disappears between the check and the link. An upload's lock comes before it.
package hub

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tare/internal/base/files"
	"tare/internal/image/blob"
)

// Hub is the registry of one folder. It is an http.Handler.
type Hub struct {
	*shelf
	*sessions
	log   *slog.Logger
	lock  *os.File
	links sync.RWMutex // see the package comment
}

// Open uses (and makes) root, which only one Hub may use at a time. log may be nil.
func Open(root string, log *slog.Logger) (*Hub, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{"uploads", "repositories"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, fmt.Errorf("cannot open registry %s: %w", root, err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(root, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open registry %s: %w", root, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("cannot open registry %s: another registry serves it (%w)", root, err)
	}
	h := &Hub{shelf: &shelf{root: root}, log: log, lock: lock,
		sessions: &sessions{dir: filepath.Join(root, "uploads"), uploads: map[string]*upload{}}}
	if err := h.open(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("cannot open registry %s: %w", root, err)
	}
	return h, nil
}

func (h *Hub) open() (err error) {
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
	return h.sweep()
}

// Close ends the use of the folder. Requests have to be over.
func (h *Hub) Close() error {
	h.sessions.close()
	h.blobs.Close()
	return h.lock.Close()
}

// ServeHTTP answers one request and logs it.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, start: time.Now()}
	h.route(rec, r)
	rec.log(h.log, r)
}
