package registry

import (
	"context"
	"net/http"
	"strings"

	registrytypes "github.com/moby/moby/api/types/registry"

	"tare/internal/base/fault"
)

// Login checks credentials with the registry at auth.ServerAddress ("" is Docker Hub) and returns Docker's
// status and, where the token server gives one, an identity token. Wrong credentials are Unauthorized.
func (c *Client) Login(ctx context.Context, auth registrytypes.AuthConfig) (registrytypes.AuthResponse, error) {
	c, host := c.now(), hostOf(auth.ServerAddress)
	e, err := c.upstream(ctx, host, c.rules.of(host))
	if err != nil {
		return registrytypes.AuthResponse{}, err
	}
	if c.rules.host(host).Blocked {
		return registrytypes.AuthResponse{}, fault.Forbidden("registry %s is blocked by %s", host, c.rules.file)
	}
	h, err := c.httpClient(e.host(), e.insecure)
	if err != nil {
		return registrytypes.AuthResponse{}, err
	}
	a := newAuthorizer(c, &auth)
	a.offline = true
	given := a.refresh
	for try := 1; try <= 2; try++ {
		rq, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+"/v2/", nil)
		if err != nil {
			return registrytypes.AuthResponse{}, fault.Invalid("invalid registry address %q: %w", auth.ServerAddress, err)
		}
		rq.Header.Set("User-Agent", c.config.UserAgent)
		a.apply(e, rq)
		rs, err := h.Do(rq)
		if err != nil {
			return registrytypes.AuthResponse{}, connectionError(err)
		}
		if rs.StatusCode < 400 {
			drain(rs)
			reply := registrytypes.AuthResponse{Status: "Login Succeeded"}
			if a.refresh != given {
				reply.IdentityToken = a.refresh
			}
			return reply, nil
		}
		refused := c.readError(rs)
		if rs.StatusCode != http.StatusUnauthorized {
			return registrytypes.AuthResponse{}, fault.Unavailable("login attempt to %s/v2/ failed with status: %s", e.base, rs.Status)
		}
		ok := false
		if try == 1 {
			if ok, err = a.answer(ctx, e, h, rs.Header, ""); asError(err) == nil && err != nil {
				return registrytypes.AuthResponse{}, err
			} else if err != nil {
				refused = asError(err)
			}
		}
		if !ok {
			return registrytypes.AuthResponse{}, fault.Unauthorized("Get %q: %w", e.base+"/v2/",
				wordsOf(refused, "unauthorized", "incorrect username or password"))
		}
	}
	return registrytypes.AuthResponse{}, fault.Unauthorized("Get %q: unauthorized: incorrect username or password", e.base+"/v2/")
}

// hostOf takes the host from what `docker login` sends, which may be a URL.
func hostOf(address string) string {
	for _, scheme := range []string{"https://", "http://"} {
		address = strings.TrimPrefix(address, scheme)
	}
	host, _, _ := strings.Cut(address, "/")
	switch host {
	case "", "index.docker.io", hubEndpoint:
		return dockerHub
	}
	return host
}
