package registry

import (
	"errors"
	"net/http"

	"tare/internal/base/fault"
)

// maxHops bounds the redirects of one request.
const maxHops = 10

// redirect lets a request follow where a registry sends it, without what only the registry may see: neither credentials nor cookies go to
// another host, another port counting as one, and nothing goes from HTTPS to HTTP.
func redirect(rq *http.Request, via []*http.Request) error {
	if len(via) >= maxHops {
		return fault.Unavailable("the registry redirects more than %d times", maxHops)
	}
	first, last := via[0], via[len(via)-1]
	if last.URL.Scheme == "https" && rq.URL.Scheme != "https" {
		return fault.Unavailable("registry %s redirects from HTTPS to %s, which is not encrypted", last.URL.Host, rq.URL.Redacted())
	}
	if rq.URL.Scheme != "https" && rq.URL.Scheme != "http" {
		return errors.New("the registry redirects to something that is not HTTP")
	}
	if rq.URL.Host != first.URL.Host {
		for _, h := range []string{"Authorization", "Cookie", "Www-Authenticate", "Proxy-Authorization"} {
			rq.Header.Del(h)
		}
	}
	return nil
}
