package hub

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"time"

	"tare/internal/hub/audit"
)

// blobCall is a call of a blob.
type blobCall struct{ *call }

func blobUnknown(arg string) *refusal {
	return refuse(http.StatusNotFound, "BLOB_UNKNOWN", "blob %s is unknown to this repository", arg)
}

// get serves GET and HEAD, with ranges, from the file.
func (c blobCall) get() error {
	d, err := parseDigest(c.arg)
	if err != nil {
		return err
	}
	if !exists(c.blobLink(c.name, d)) {
		if k := c.cacheOf(c.name); k != nil {
			return pullThrough{c.call, k}.fetchBlob(d)
		}
		return blobUnknown(c.arg)
	}
	if c.r.Method == http.MethodHead {
		c.pins.pin(c.name, d, c.client())
	}
	f, err := c.blobs.Reader(d)
	if err != nil {
		return blobUnknown(c.arg)
	}
	defer f.Close()
	return c.send(f, d.String())
}

func (c blobCall) send(f *os.File, d string) error {
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d)
	h.Set("ETag", `"`+d+`"`)
	h.Set("Cache-Control", "max-age=31536000")
	http.ServeContent(c.w, c.r, "", time.Time{}, f)
	if c.r.Method == http.MethodGet && c.w.code() < 300 {
		c.happened(audit.Entry{Action: "pull", Object: "blob", Digest: d, Bytes: c.w.bytes}, "")
	}
	return nil
}

// delete takes a blob out of a repository, and off the disk if no other has it.
func (c blobCall) delete() error {
	d, err := parseDigest(c.arg)
	if err != nil {
		return err
	}
	c.links.Lock()
	defer c.links.Unlock()
	if err := c.unlink(c.blobLink(c.name, d)); errors.Is(err, fs.ErrNotExist) {
		return blobUnknown(c.arg)
	} else if err != nil {
		return err
	}
	c.index.remove(d, c.name, false)
	freed, err := c.dropUnlinked(d)
	if err != nil {
		return err
	}
	c.meters.freed.Add(freed)
	c.w.WriteHeader(http.StatusAccepted)
	c.happened(audit.Entry{Action: "delete", Object: "blob", Digest: d.String()}, "")
	return nil
}
