package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// Call asks the engine for something that only Tare has, which Docker's client library does not know. path begins with
// "/images/…", without version; out, if not nil, is filled from the answer's JSON.
func (e *Env) Call(ctx context.Context, c *client.Client, method, path string, query url.Values, header http.Header, out any) error {
	return e.Stream(ctx, c, method, path, query, header, func(body io.Reader) error {
		if out == nil {
			return nil
		}
		return json.NewDecoder(body).Decode(out)
	})
}

// Stream is Call for an answer that read takes as it comes.
func (e *Env) Stream(ctx context.Context, c *client.Client, method, path string, query url.Values, header http.Header, read func(io.Reader) error) error {
	h := &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dialer()(ctx) },
		DisableKeepAlives: true,
	}}
	u := url.URL{Scheme: "http", Host: "tare", Path: "/v" + c.ClientVersion() + path, RawQuery: query.Encode()}
	rq, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return err
	}
	for k, v := range header {
		rq.Header[k] = v
	}
	rs, err := h.Do(rq)
	if err != nil {
		var uerr *url.Error
		if errors.As(err, &uerr) {
			err = uerr.Err
		}
		return err
	}
	defer rs.Body.Close()
	if rs.StatusCode >= 400 {
		data, err := io.ReadAll(io.LimitReader(rs.Body, 1<<20))
		if err != nil {
			return err
		}
		var refused struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(data, &refused) != nil || refused.Message == "" {
			refused.Message = rs.Status + ": " + string(bytes.TrimSpace(data))
		}
		if rs.StatusCode == http.StatusNotFound && refused.Message == "page not found" {
			return errors.New("the engine does not know this: it is Tare's own, and the engine is another one or older")
		}
		if rs.StatusCode == http.StatusNotFound {
			return fmt.Errorf("Error response from daemon: %s%w", refused.Message, silent{errdefs.ErrNotFound})
		}
		return fmt.Errorf("Error response from daemon: %s", refused.Message)
	}
	return read(rs.Body)
}

// silent gives an error a class without words.
type silent struct{ class error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.class }
