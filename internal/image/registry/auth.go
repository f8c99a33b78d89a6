package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	registrytypes "github.com/moby/moby/api/types/registry"

	"tare/internal/base/fault"
)

// authorizer answers the challenges of one registry for one user (RFC 7235; distribution's "Token
// Authentication" and "OAuth2 token" specifications). Mirrors and others that the name does not say get what an anonymous user has, or
// the credentials that the rules give for them.
type authorizer struct {
	c       *Client
	user    string
	secret  string
	refresh string // identity token
	bearer  string // a token to use as it is
	offline bool   // ask token servers for an identity token, too

	mu     sync.Mutex        // guards tokens and refresh
	tokens map[string]string // header value by endpoint base
	expiry map[string]time.Time
}

// clientID names the program to token servers.
const clientID = "tare"

func newAuthorizer(c *Client, auth *registrytypes.AuthConfig) *authorizer {
	a := &authorizer{c: c, tokens: map[string]string{}, expiry: map[string]time.Time{}}
	if auth == nil {
		return a
	}
	a.user, a.secret = auth.Username, auth.Password
	a.refresh, a.bearer = auth.IdentityToken, auth.RegistryToken
	if a.user == "" && auth.Auth != "" {
		if raw, err := base64.StdEncoding.DecodeString(auth.Auth); err == nil {
			a.user, a.secret, _ = strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
		}
	}
	return a
}

// apply adds what an earlier challenge led to.
func (a *authorizer) apply(e endpoint, rq *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.tokens[e.base]
	if v == "" || time.Now().After(a.expiry[e.base]) {
		if a.bearer == "" || e.foreign {
			return
		}
		v = "Bearer " + a.bearer
	}
	rq.Header.Set("Authorization", v)
}

// answer meets the challenges in h; it is false when there is nothing to offer that has not been refused.
func (a *authorizer) answer(ctx context.Context, e endpoint, client *http.Client, h http.Header, scope string) (bool, error) {
	user, secret, err := a.login(e)
	if err != nil {
		return false, err
	}
	for _, ch := range challenges(h) {
		switch ch.scheme {
		case "bearer":
			token, life, err := a.token(ctx, e, client, ch.params, scope, user, secret)
			if err != nil {
				return false, err
			}
			a.keep(e, "Bearer "+token, life)
			return true, nil
		case "basic":
			if user == "" {
				continue
			}
			a.keep(e, "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+secret)), 24*time.Hour)
			return true, nil
		}
	}
	return false, nil
}

// login is whom to be at an endpoint: the client's user at the registry it means, else what the rules have, else nobody ("").
func (a *authorizer) login(e endpoint) (user, secret string, err error) {
	if a.user != "" && !e.foreign {
		return a.user, a.secret, nil
	}
	own, err := a.c.own(e)
	if own == nil || err != nil {
		return "", "", err
	}
	return own.Username, own.Password, nil
}

func (a *authorizer) keep(e endpoint, value string, life time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[e.base] = value
	a.expiry[e.base] = time.Now().Add(life)
}

// token asks the token server of a challenge. life is how long the token is good for.
func (a *authorizer) token(ctx context.Context, e endpoint, client *http.Client, params map[string]string, scope, user, secret string) (token string, life time.Duration, err error) {
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" {
		return "", 0, fault.Invalid("registry %s names no token server that can be used: realm %q", e.host(), params["realm"])
	}
	if s := params["scope"]; scope == "" {
		scope = s
	} else if s != "" && s != scope && !strings.HasPrefix(s, strings.TrimSuffix(scope, "pull,push")) {
		scope = scope + " " + s
	}
	a.mu.Lock()
	refresh := a.refresh
	a.mu.Unlock()
	if e.foreign {
		refresh = ""
	}
	if realm.Scheme != "https" && realm.Scheme != "http" || e.secure() && realm.Scheme != "https" && (user != "" || refresh != "") {
		return "", 0, fault.Unavailable("registry %s wants credentials to be sent to %s, which is not encrypted", e.host(), realm.Redacted())
	}
	for try := 1; ; try++ {
		rq, err := a.tokenRequest(ctx, realm, params["service"], scope, refresh, user, secret)
		if err != nil {
			return "", 0, err
		}
		rq.Header.Set("User-Agent", a.c.config.UserAgent)
		var reply struct {
			Token        string `json:"token"`
			AccessToken  string `json:"access_token"`
			RefreshToken string `json:"refresh_token"`
			ExpiresIn    int    `json:"expires_in"` // seconds
		}
		err = a.c.fetchJSON(client, rq, &reply)
		if err != nil {
			if ctx.Err() != nil {
				return "", 0, ctx.Err()
			}
			if try < a.c.config.Tries && asError(err) != nil && passing(err) {
				if err := a.c.sleep(ctx, try, err); err != nil {
					return "", 0, err
				}
				continue
			}
			return "", 0, err
		}
		if reply.Token == "" {
			reply.Token = reply.AccessToken
		}
		if reply.Token == "" {
			return "", 0, fault.Unauthorized("authorization server %s did not include a token in the response", realm.Host)
		}
		if reply.RefreshToken != "" {
			a.mu.Lock()
			a.refresh = reply.RefreshToken
			a.mu.Unlock()
		}
		// 60 seconds is what the specification says where the server says nothing; a little less keeps
		// a token from ending under way.
		return reply.Token, max(time.Duration(reply.ExpiresIn)*time.Second, 60*time.Second) * 9 / 10, nil
	}
}

func (a *authorizer) tokenRequest(ctx context.Context, realm *url.URL, service, scope, refresh, user, secret string) (*http.Request, error) {
	if refresh != "" {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "service": {service}, "client_id": {clientID}}
		if scope != "" {
			form.Set("scope", scope)
		}
		rq, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err == nil {
			rq.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return rq, err
	}
	u := *realm
	q := u.Query()
	if service != "" {
		q.Set("service", service)
	}
	for _, s := range strings.Fields(scope) {
		q.Add("scope", s)
	}
	if user != "" {
		q.Set("account", user)
		if a.offline {
			q.Set("offline_token", "true")
			q.Set("client_id", clientID)
		}
	}
	u.RawQuery = q.Encode()
	rq, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && user != "" {
		rq.SetBasicAuth(user, secret)
	}
	return rq, err
}

func (c *Client) fetchJSON(client *http.Client, rq *http.Request, v any) error {
	rs, err := client.Do(rq)
	if err != nil {
		return connectionError(err)
	}
	if rs.StatusCode >= 400 {
		return c.readError(rs)
	}
	body, done := c.small(rs.Body)
	defer done()
	if err := json.NewDecoder(io.LimitReader(body, 1<<20)).Decode(v); err != nil {
		return fault.Unavailable("cannot read the answer of %s: %w", rq.URL.Host, err)
	}
	return nil
}

// challenge is one entry of WWW-Authenticate; scheme is in lower case.
type challenge struct {
	scheme string
	params map[string]string
}

// challenges parses the header leniently: what does not fit is skipped.
func challenges(h http.Header) []challenge {
	var cs []challenge
	for _, v := range h.Values("WWW-Authenticate") {
		for rest := strings.TrimSpace(v); rest != ""; {
			word, tail := token(rest)
			if word == "" {
				rest = strings.TrimLeft(rest[1:], " ,\t")
				continue
			}
			tail = strings.TrimLeft(tail, " \t")
			if !strings.HasPrefix(tail, "=") {
				cs = append(cs, challenge{strings.ToLower(word), map[string]string{}})
				rest = strings.TrimLeft(tail, " ,\t")
				continue
			}
			value, tail := paramValue(strings.TrimLeft(tail[1:], " \t"))
			if len(cs) > 0 {
				cs[len(cs)-1].params[strings.ToLower(word)] = value
			}
			rest = strings.TrimLeft(tail, " ,\t")
		}
	}
	return cs
}

// token splits off the characters of an RFC 9110 token.
func token(s string) (word, rest string) {
	i := 0
	for i < len(s) && s[i] > ' ' && s[i] < 0x7f && !strings.ContainsRune(`()<>@,;:\"/[]?={}`, rune(s[i])) {
		i++
	}
	return s[:i], s[i:]
}

// paramValue splits off a token or a quoted string.
func paramValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		if i := strings.IndexAny(s, ", \t"); i >= 0 {
			return s[:i], s[i:]
		}
		return s, ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			if i+1 < len(s) {
				i++
			}
			fallthrough
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}
