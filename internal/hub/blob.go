package hub

import (
	"errors"
	"io/fs"
	"net/http"
	"time"
)

func blobUnknown(arg string) *refusal {
	return refuse(http.StatusNotFound, "BLOB_UNKNOWN", "blob %s is unknown to this repository", arg)
}

// getBlob serves GET and HEAD, with ranges, from the file.
func (h *Hub) getBlob(w http.ResponseWriter, r *http.Request, name, arg string) error {
	d, err := parseDigest(arg)
	if err != nil {
		return err
	}
	if !exists(h.blobLink(name, d)) {
		return blobUnknown(arg)
	}
	f, err := h.blobs.Reader(d)
	if err != nil {
		return blobUnknown(arg)
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("ETag", `"`+d.String()+`"`)
	w.Header().Set("Cache-Control", "max-age=31536000")
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// deleteBlob takes a blob out of a repository, and off the disk if no other has it.
func (h *Hub) deleteBlob(w http.ResponseWriter, r *http.Request, name, arg string) error {
	d, err := parseDigest(arg)
	if err != nil {
		return err
	}
	h.links.Lock()
	defer h.links.Unlock()
	if err := unlink(h.blobLink(name, d)); errors.Is(err, fs.ErrNotExist) {
		return blobUnknown(arg)
	} else if err != nil {
		return err
	}
	if err := h.dropUnlinked(d); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
