package engineapi

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	enginearchive "tare/internal/engine/archive"
	enginecontainer "tare/internal/engine/container"
)

// open reads the path parameter and opens the container's files.
func (d fileDoor) open(r *http.Request) (f *enginecontainer.Files, path string, err error) {
	if err := parseForm(r); err != nil {
		return nil, "", err
	}
	if path = r.FormValue("path"); path == "" {
		return nil, "", fault.Invalid("bad parameter: 'path' cannot be empty")
	}
	f, err = d.s.Open(r.Context(), r.PathValue("id"))
	return f, path, err
}

func setPathStat(w http.ResponseWriter, st container.PathStat) error {
	data, err := json.Marshal(st)
	if err != nil {
		return err
	}
	w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(data))
	return nil
}

func (d fileDoor) statArchive(w http.ResponseWriter, r *http.Request) error {
	f, path, err := d.open(r)
	if err != nil {
		return err
	}
	defer release(f)
	st, err := enginearchive.Stat(r.Context(), f, path)
	if err != nil {
		return err
	}
	return setPathStat(w, st)
}

func (d fileDoor) getArchive(w http.ResponseWriter, r *http.Request) error {
	f, path, err := d.open(r)
	if err != nil {
		return err
	}
	defer release(f)
	tar, st, err := enginearchive.Get(r.Context(), f, path)
	if err != nil {
		return err
	}
	defer tar.Close()
	if err := setPathStat(w, st); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	_, err = io.Copy(w, tar)
	return cut(w, err)
}

func (d fileDoor) putArchive(w http.ResponseWriter, r *http.Request) error {
	f, path, err := d.open(r)
	if err != nil {
		return err
	}
	defer release(f)
	if err := enginearchive.Put(r.Context(), f, path, r.Body, boolean(r, "noOverwriteDirNonDir"), boolean(r, "copyUIDGID")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (d fileDoor) export(w http.ResponseWriter, r *http.Request) error {
	f, err := d.s.Open(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	defer release(f)
	w.Header().Set("Content-Type", "application/x-tar")
	return cut(w, enginearchive.Export(r.Context(), f, w))
}

func (d fileDoor) changes(w http.ResponseWriter, r *http.Request) error {
	f, err := d.s.Open(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	defer release(f)
	list, err := enginearchive.Changes(r.Context(), f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, orEmpty(list))
}

// cut ends a download that failed half-way by breaking the connection, so that no client takes the part
// for the whole.
func cut(w http.ResponseWriter, err error) error {
	if err != nil && begun(w) {
		panic(http.ErrAbortHandler)
	}
	return err
}
