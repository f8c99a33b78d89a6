package hub

import (
	"net/http"
	"os"

	"tare/internal/base/files"
	"tare/internal/hub/access"
	"tare/internal/hub/audit"
	"tare/internal/hub/notify"
)

// client tells clients apart, for limits and pins.
func (c *call) client() string { return c.who.id.Name + "@" + c.remote() }

// happened tells audit log, webhooks and metrics what was done. mediaType is of a manifest.
func (c *call) happened(e audit.Entry, mediaType string) {
	e.Repository, e.Actor, e.Status = c.name, c.who.id.Name, c.w.code()
	c.meters.events.Add(1, e.Action, e.Object)
	c.record(e)
	if c.hooks == nil {
		return
	}
	n := notify.Event{Action: e.Action,
		Target: notify.Target{MediaType: mediaType, Size: e.Bytes, Digest: e.Digest, Repository: c.name, Tag: e.Tag, FromRepository: e.From},
		Request: notify.Request{Addr: c.r.RemoteAddr, Host: c.r.Host, Method: c.r.Method, UserAgent: c.r.UserAgent(),
			ID: c.r.Header.Get("X-Request-Id")},
		Actor: notify.Actor{Name: c.who.id.Name}, Source: notify.Source{Addr: c.config.Listen}}
	if e.Digest != "" && e.Action != "delete" {
		kind := "/blobs/"
		if e.Object == "manifest" {
			kind = "/manifests/"
		}
		n.Target.URL = c.address() + "/v2/" + c.name + kind + e.Digest
	}
	if err := c.hooks.Send(n); err != nil {
		c.Hub.log.Error("cannot tell webhooks", "error", err)
	}
}

// record writes to the audit log.
func (c *call) record(e audit.Entry) {
	if c.audit == nil {
		return
	}
	e.Remote, e.Agent = c.remote(), c.r.UserAgent()
	if err := c.audit.Write(e); err != nil {
		c.Hub.log.Error("cannot write audit log", "error", err)
	}
}

// recordRefusal notes what somebody was not allowed to do. A challenge to nobody in particular is no refusal.
func (c *call) recordRefusal(f *refusal) {
	if c.audit == nil || c.name == "" || f.status == http.StatusUnauthorized && !c.who.proven {
		return
	}
	action := access.Pull
	switch c.r.Method {
	case http.MethodDelete:
		action = access.Delete
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		action = access.Push
	}
	c.record(audit.Entry{Actor: c.who.id.Name, Action: action, Object: c.w.kind, Repository: c.name, Status: f.status, Reason: f.message})
}

// health tells whether the registry can do its work: its folder can be written, and has room.
func (c *call) health() error {
	path := c.root + "/.health"
	if err := files.Write(path, []byte("ok\n"), 0o600, files.Fast); err != nil {
		return refuse(http.StatusServiceUnavailable, "UNKNOWN", "the registry's folder can't be written: %v", err)
	}
	os.Remove(path)
	if err := c.room(); err != nil {
		return refuse(http.StatusServiceUnavailable, "UNKNOWN", "no space left on the registry's disk")
	}
	return writeJSON(c.w, http.StatusOK, map[string]string{"status": "ok"})
}

// Admin serves what is not for clients: /metrics, and /healthz as everywhere.
func (h *Hub) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		h.meters.set.Write(w)
	})
	mux.Handle("GET /healthz", h)
	return mux
}

// room refuses to take more when the disk is as full as it may get.
func (c *call) room() error {
	if min := int64(c.config.Limits.Free); min > 0 && c.free() < min {
		return errNoSpace
	}
	return nil
}
