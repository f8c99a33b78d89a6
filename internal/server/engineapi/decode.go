package engineapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/registry"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
)

// maxBody limits JSON bodies; tar streams are not limited.
const maxBody = 8 << 20

// readJSON decodes the body into v. An empty body leaves v as it is, unless required.
func readJSON(w http.ResponseWriter, r *http.Request, v any, required bool) error {
	if r.Body == nil || r.ContentLength == 0 {
		if required {
			return fault.Invalid("invalid JSON: got EOF while reading request body")
		}
		return nil
	}
	if err := checkJSONType(r.Header.Get("Content-Type")); err != nil {
		io.CopyN(io.Discard, r.Body, maxRest) // a client that is still writing when the connection closes would not see the answer
		return err
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			if !required {
				return nil
			}
			return fault.Invalid("invalid JSON: got EOF while reading request body")
		}
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			return err
		}
		return fault.Invalid("invalid JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fault.Invalid("unexpected content after JSON")
	}
	return nil
}

// fullDuplex lets the answer begin before the body has ended. What it returns is to be called at the handler's end: it
// reads a rest that is not long, since a connection closed with a rest unread takes the answer with it.
func fullDuplex(w http.ResponseWriter, r *http.Request) (end func()) {
	http.NewResponseController(w).EnableFullDuplex()
	return func() { io.CopyN(io.Discard, r.Body, maxRest) }
}

// maxRest is what net/http itself reads of a body that a handler did not want, in bytes.
const maxRest = 256 << 10

func checkJSONType(ct string) error {
	if ct == "" {
		return nil
	}
	mt, _, err := mime.ParseMediaType(ct)
	if err != nil {
		return fault.Invalid("malformed Content-Type header (%s): %w", ct, err)
	}
	// Old clients send their JSON as text/plain.
	if mt != "application/json" && mt != "text/plain" {
		return fault.Invalid("unsupported Content-Type header (%s): must be 'application/json'", ct)
	}
	return nil
}

// parseForm reads the query, and never the body.
func parseForm(r *http.Request) error {
	body, ct := r.Body, r.Header.Get("Content-Type")
	r.Body = http.NoBody
	r.Header.Del("Content-Type")
	err := r.ParseForm()
	r.Body = body
	if ct != "" {
		r.Header.Set("Content-Type", ct)
	}
	if err != nil {
		return fault.Invalid("invalid query: %w", err)
	}
	return nil
}

// filters decodes the filters parameter.
func filters(r *http.Request) (filter.Args, error) { return filter.Parse(r.FormValue("filters")) }

// timeParam reads a time: Unix seconds with an optional fraction, or RFC 3339. Absent or "0" is the zero time.
func timeParam(r *http.Request, key string) (time.Time, error) {
	s := r.FormValue(key)
	if s == "" || s == "0" {
		return time.Time{}, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return time.Time{}, fault.Invalid("invalid value for %q: %w", key, err)
	}
	return t, nil
}

func parseTime(s string) (time.Time, error) {
	sec, frac, _ := strings.Cut(s, ".")
	if n, err := strconv.ParseInt(sec, 10, 64); err == nil {
		frac = (frac + "000000000")[:9]
		ns, err := strconv.ParseInt(frac, 10, 64)
		if err != nil || ns < 0 {
			return time.Time{}, fault.Invalid("%q is not a time", s)
		}
		if n > math.MaxInt64/int64(time.Second) {
			return time.Unix(0, math.MaxInt64), nil
		}
		return time.Unix(n, ns), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	return time.Time{}, fault.Invalid("%q is not a time", s)
}

// auth decodes X-Registry-Auth, base64url of JSON. Docker's clients may send it empty; what can't be
// decoded is Invalid.
func auth(r *http.Request) (*registry.AuthConfig, error) {
	h := r.Header.Get(registry.AuthHeader)
	if h == "" {
		return nil, nil
	}
	data, err := base64.URLEncoding.DecodeString(h)
	if err != nil {
		if data, err = base64.StdEncoding.DecodeString(h); err != nil {
			return nil, fault.Invalid("invalid X-Registry-Auth header: must be a valid base64url-encoded string")
		}
	}
	var a registry.AuthConfig
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, fault.Invalid("invalid X-Registry-Auth header: %w", err)
	}
	if a == (registry.AuthConfig{}) {
		return nil, nil
	}
	return &a, nil
}
