package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tare/internal/base/fault"
	"tare/internal/base/files"
	"tare/internal/hub/config"
)

// Access is one entry of a token: what it is good for (distribution's "Token Authentication Specification").
type Access struct {
	Type    string   `json:"type"` // repository, registry
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// Claims is what a token says.
type Claims struct {
	jwt.RegisteredClaims
	Access  []Access `json:"access"`
	Refresh string   `json:"refresh,omitempty"` // of an identity token: what binds it to the account's credentials
}

// Grants tells whether the token is good for an action in a repository.
func (c *Claims) Grants(repository, action string) bool {
	for _, a := range c.Access {
		if a.Type == "repository" && a.Name == repository && (slices.Contains(a.Actions, action) || slices.Contains(a.Actions, "*")) {
			return true
		}
	}
	return false
}

// Tokens makes and reads tokens, signed with the key in ROOT/token.key.
type Tokens struct {
	service  string
	lifetime time.Duration
	refresh  time.Duration
	key      *ecdsa.PrivateKey

	mu    sync.Mutex // guards known
	known map[[32]byte]*Claims
}

// maxKnown bounds how many verified tokens are remembered.
const maxKnown = 4096

func openTokens(root string, c config.Auth) (*Tokens, error) {
	t := &Tokens{service: c.Service, lifetime: c.Lifetime.Std(), refresh: c.Refresh.Std(), known: map[[32]byte]*Claims{}}
	path := filepath.Join(root, "token.key")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if t.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(t.key)
		if err != nil {
			return nil, err
		}
		return t, files.Write(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600, files.Synced)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read token key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fault.Invalid("%s is no key in PEM form; remove it and a new one is made", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read token key %s: %w", path, err)
	}
	var ok bool
	if t.key, ok = key.(*ecdsa.PrivateKey); !ok {
		return nil, fault.Invalid("%s is no elliptic curve key; remove it and a new one is made", path)
	}
	return t, nil
}

// Service is the registry's name in tokens.
func (t *Tokens) Service() string { return t.service }

// Lifetime is how long a token is good for.
func (t *Tokens) Lifetime() time.Duration { return t.lifetime }

func (t *Tokens) sign(sub string, life time.Duration, access []Access, refresh string) (string, time.Time, error) {
	now := time.Now().Truncate(time.Second)
	id := make([]byte, 16)
	rand.Read(id)
	claims := Claims{Access: access, Refresh: refresh, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: t.service, Subject: sub, Audience: jwt.ClaimStrings{t.service}, ID: hex.EncodeToString(id),
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now.Add(-10 * time.Second)), ExpiresAt: jwt.NewNumericDate(now.Add(life)),
	}}
	s, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(t.key)
	return s, now, err
}

// Issue makes a token for access.
func (t *Tokens) Issue(id Identity, access []Access) (token string, issued time.Time, err error) {
	return t.sign(id.Name, t.lifetime, access, "")
}

// IssueRefresh makes an identity token, which is good until the account's credentials change.
func (t *Tokens) IssueRefresh(id Identity) (string, error) {
	s, _, err := t.sign(id.Name, t.refresh, nil, bound(id))
	return s, err
}

func bound(id Identity) string {
	sum := sha256.Sum256([]byte(id.Name + "\x00" + id.key))
	return hex.EncodeToString(sum[:16])
}

// Verify reads an access token; Unauthorized if it is not one of ours, or is too old.
func (t *Tokens) Verify(token string) (*Claims, error) {
	id := sha256.Sum256([]byte(token))
	t.mu.Lock()
	c := t.known[id]
	t.mu.Unlock()
	if c == nil {
		var err error
		if c, err = t.parse(token); err != nil {
			return nil, err
		}
		if c.Refresh != "" {
			return nil, fault.Unauthorized("an identity token is good for the token server only")
		}
		t.mu.Lock()
		if len(t.known) >= maxKnown {
			clear(t.known)
		}
		t.known[id] = c
		t.mu.Unlock()
	}
	if time.Now().After(c.ExpiresAt.Time) {
		return nil, fault.Unauthorized("the token has expired")
	}
	return c, nil
}

func (t *Tokens) parse(token string) (*Claims, error) {
	c := &Claims{}
	_, err := jwt.ParseWithClaims(token, c, func(*jwt.Token) (any, error) { return &t.key.PublicKey, nil },
		jwt.WithValidMethods([]string{"ES256"}), jwt.WithAudience(t.service), jwt.WithIssuer(t.service), jwt.WithExpirationRequired())
	if err != nil {
		return nil, fault.Unauthorized("invalid token: %w", err)
	}
	return c, nil
}

// Refresh finds the identity of an identity token.
func (c *Control) Refresh(token string) (Identity, error) {
	claims, err := c.Tokens.parse(token)
	if err != nil {
		return Identity{}, err
	}
	id, ok := c.Identity(claims.Subject)
	if !ok || claims.Refresh == "" || claims.Refresh != bound(id) {
		return Identity{}, fault.Unauthorized("the identity token is no longer good: log in again")
	}
	return id, nil
}

// ParseScope reads "repository:NAME:ACTION,ACTION"; NAME may hold colons. It is false for what is none.
func ParseScope(s string) (Access, bool) {
	kind, rest, ok := strings.Cut(s, ":")
	i := strings.LastIndexByte(rest, ':')
	if !ok || i <= 0 || kind == "" {
		return Access{}, false
	}
	if kind, _, _ = strings.Cut(kind, "("); kind == "" { // a class may follow, as in repository(plugin)
		return Access{}, false
	}
	a := Access{Type: kind, Name: rest[:i]}
	for _, action := range strings.Split(rest[i+1:], ",") {
		if action != "" {
			a.Actions = append(a.Actions, action)
		}
	}
	return a, true
}

// Cut is what of the wanted access somebody may have.
func (c *Control) Cut(id Identity, wanted []Access) []Access {
	got := []Access{}
	for _, w := range wanted {
		a := Access{Type: w.Type, Name: w.Name, Actions: []string{}}
		for _, action := range w.Actions {
			switch {
			case w.Type == "registry" && w.Name == "catalog" && action == "*":
				a.Actions = append(a.Actions, "*") // what it lists depends on rights
			case w.Type != "repository":
			case action == "*":
				for _, each := range []string{Pull, Push, Delete} {
					if c.Allowed(id, w.Name, each) {
						a.Actions = append(a.Actions, each)
					}
				}
			case c.Allowed(id, w.Name, action):
				a.Actions = append(a.Actions, action)
			}
		}
		if len(a.Actions) > 0 {
			got = append(got, a)
		}
	}
	return got
}
