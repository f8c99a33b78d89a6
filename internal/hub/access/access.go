// Package access decides who may do what in which repository.
//
//	account    a name with a password: a person's (user) or a program's (robot, whose name begins with "robot$")
//	identity   who a request comes from; the zero Identity is anonymous
//	action     pull, push, delete, admin; admin is all of them, and moves what is immutable
//	right      a rule of the configuration: who may do which actions in which repositories
//	grant      a robot's own right, kept with its account
//	token      what the registry signs so that a client need not send its password again (see token.go)
//
// What no right or grant allows is refused. Rights are looked at when a request comes, not when its token was
// made: a right that is gone is gone at once.
package access

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"tare/internal/base/fault"
	"tare/internal/hub/config"
	"tare/internal/hub/pattern"
)

// The actions.
const (
	Pull   = "pull"
	Push   = "push"
	Delete = "delete"
	Admin  = "admin"
)

// Identity is who asks.
type Identity struct {
	Name   string // "" is anonymous
	Groups []string
	Grants []Grant // a robot's
	key    string  // changes with the credentials; binds identity tokens to them
}

// Anonymous tells whether nobody said who they are.
func (i Identity) Anonymous() bool { return i.Name == "" }

// Grant is what a robot may do.
type Grant struct {
	Repositories []string `json:"repositories"`
	Actions      []string `json:"actions"`
}

// Control knows accounts and rights. Its methods are safe for concurrent use.
type Control struct {
	scheme   string
	rights   []config.Right
	accounts *Accounts
	htpasswd *htpasswd // nil for none
	Tokens   *Tokens
	proofs   proofs
}

// Open reads accounts and the token key from the registry's folder. With the scheme none it returns nil: everybody may do everything.
func Open(root string, c *config.Config) (*Control, error) {
	if c.Auth.Scheme == "none" {
		return nil, nil
	}
	control := &Control{scheme: c.Auth.Scheme, rights: c.Rights, accounts: OpenAccounts(root)}
	if _, err := control.accounts.read(); err != nil {
		return nil, err
	}
	if c.Auth.Htpasswd != "" {
		control.htpasswd = &htpasswd{path: c.Auth.Htpasswd}
		if _, err := control.htpasswd.read(); err != nil {
			return nil, err
		}
	}
	var err error
	control.Tokens, err = openTokens(root, c.Auth)
	rand.Read(control.proofs.key[:])
	return control, err
}

// Scheme is token or basic.
func (c *Control) Scheme() string { return c.scheme }

// Check finds the identity of a name and password; Unauthorized if they don't fit.
func (c *Control) Check(name, password string) (Identity, error) {
	id, verify, err := c.find(name)
	if err != nil {
		return Identity{}, err
	}
	if verify == nil {
		// As slow as a wrong password, so that names can't be found out.
		verify = func(p string) bool { return bcrypt.CompareHashAndPassword(nobody(), []byte(p)) == nil && false }
	}
	if !c.proofs.check(name, id.key, password, verify) {
		return Identity{}, fault.Unauthorized("incorrect username or password")
	}
	return id, nil
}

// nobody is the hash of a password that no account has.
var nobody = sync.OnceValue(func() []byte {
	h, err := bcrypt.GenerateFromPassword([]byte(time.Now().String()), bcrypt.DefaultCost)
	if err != nil {
		panic(err) // only for a bad cost or a long password
	}
	return h
})

// find looks an account up; verify is nil if there is none.
func (c *Control) find(name string) (id Identity, verify func(password string) bool, err error) {
	all, err := c.accounts.read()
	if err != nil {
		return id, nil, err
	}
	if a := all.account(name); a != nil {
		if a.Disabled || !a.Expires.IsZero() && time.Now().After(a.Expires) {
			return id, nil, nil
		}
		return a.identity(), a.verify, nil
	}
	if c.htpasswd != nil {
		hashes, err := c.htpasswd.read()
		if err != nil {
			return id, nil, err
		}
		if hash, ok := hashes[name]; ok {
			return Identity{Name: name, key: hash}, func(p string) bool {
				return bcrypt.CompareHashAndPassword([]byte(hash), []byte(p)) == nil
			}, nil
		}
	}
	return id, nil, nil
}

// Identity finds what an account may do now, for the bearer of a token. It is false if the account is gone.
func (c *Control) Identity(name string) (Identity, bool) {
	if name == "" {
		return Identity{}, true
	}
	id, verify, err := c.find(name)
	return id, err == nil && verify != nil
}

// Allowed tells whether somebody may do an action in a repository.
func (c *Control) Allowed(id Identity, repository, action string) bool {
	for _, g := range id.Grants {
		if includes(g.Actions, action) && pattern.Any(g.Repositories, repository) {
			return true
		}
	}
	for _, r := range c.rights {
		if includes(r.Actions, action) && concerns(r, id) && inRepositories(r.Repositories, id, repository) {
			return true
		}
	}
	return false
}

func includes(actions []string, action string) bool {
	return slices.Contains(actions, action) || slices.Contains(actions, Admin)
}

func concerns(r config.Right, id Identity) bool {
	if r.Anonymous {
		return true
	}
	if id.Anonymous() {
		return false
	}
	if slices.Contains(r.Users, id.Name) {
		return true
	}
	// A robot has what it was given by name or grant: "*" means people.
	if slices.Contains(r.Users, "*") && !strings.HasPrefix(id.Name, RobotPrefix) {
		return true
	}
	for _, g := range id.Groups {
		if slices.Contains(r.Groups, g) {
			return true
		}
	}
	return false
}

func inRepositories(patterns []string, id Identity, repository string) bool {
	for _, p := range patterns {
		if strings.Contains(p, "${user}") {
			if !plainName(id.Name) {
				continue
			}
			p = strings.ReplaceAll(p, "${user}", id.Name)
		}
		if pattern.Match(p, repository) {
			return true
		}
	}
	return false
}

// plainName tells whether a name can stand in a repository's name; others, such as "*", would be patterns.
func plainName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

// proofs remembers for a while which passwords were right: bcrypt takes a tenth of a second each time.
type proofs struct {
	key [32]byte

	mu   sync.Mutex // guards seen
	seen map[[32]byte]time.Time
}

const (
	proofLife = 10 * time.Minute
	maxProofs = 10000
)

func (p *proofs) check(name, account, password string, verify func(string) bool) bool {
	mac := hmac.New(sha256.New, p.key[:])
	for _, s := range []string{name, account, password} {
		mac.Write([]byte{byte(len(s) >> 8), byte(len(s))})
		mac.Write([]byte(s))
	}
	id := [32]byte(mac.Sum(nil))
	now := time.Now()
	p.mu.Lock()
	at, ok := p.seen[id]
	p.mu.Unlock()
	if ok && now.Sub(at) < proofLife {
		return true
	}
	if !verify(password) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil || len(p.seen) >= maxProofs {
		p.seen = map[[32]byte]time.Time{}
	}
	p.seen[id] = now
	return true
}
