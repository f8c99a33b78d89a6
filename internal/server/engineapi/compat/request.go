package compat

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"

	"tare/internal/base/fault"
)

// maxBody limits what is read to be changed.
const maxBody = 8 << 20

// onBody changes a request's JSON body. One that is no object is left for the handler to refuse.
func onBody(r *http.Request, change func(*object) error) error {
	if r.Body == nil || r.ContentLength == 0 {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return fault.Invalid("cannot read the request's body: %w", err)
	}
	if len(data) <= maxBody && json.Valid(data) {
		if o, err := parseObject(data); err == nil {
			if err := change(&o); err != nil {
				return err
			}
			data = o.encode()
		}
	}
	r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(data), r.Body))
	r.ContentLength = -1
	return nil
}

// setQuery changes one query parameter.
func setQuery(r *http.Request, key, value string) {
	q := r.URL.Query()
	q.Set(key, value)
	r.URL.RawQuery = q.Encode()
}

// pruneKeepStorage is a parameter's older name.
func pruneKeepStorage(r *http.Request) error {
	if v := r.URL.Query().Get("keep-storage"); v != "" {
		setQuery(r, "reserved-space", v)
	}
	return nil
}

// pruneNamedVolumes prunes volumes with names too.
func pruneNamedVolumes(r *http.Request) error {
	filters := object{}
	if s := r.URL.Query().Get("filters"); s != "" {
		var err error
		if filters, err = parseObject([]byte(s)); err != nil {
			return nil // the handler refuses it
		}
	}
	if filters.get("all") == nil {
		filters.set("all", json.RawMessage(`["true"]`))
		// Both forms of filters have values that the other can't have beside it.
		for _, m := range filters {
			if bytes.HasPrefix(bytes.TrimSpace(m.value), []byte("{")) {
				filters.set("all", json.RawMessage(`{"true":true}`))
			}
		}
		setQuery(r, "filters", string(filters.encode()))
	}
	return nil
}

// usageVerbose asks for the items, which older answers are made of.
func usageVerbose(r *http.Request) error {
	if r.URL.Query().Get("verbose") == "" {
		setQuery(r, "verbose", "1")
	}
	return nil
}
