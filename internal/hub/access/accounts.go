package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/files"
)

// RobotPrefix begins the names of robots.
const RobotPrefix = "robot$"

// Account is an entry of ROOT/accounts.json.
type Account struct {
	Name     string    `json:"name"`
	Password string    `json:"password,omitempty"` // bcrypt, of a person
	Secret   string    `json:"secret,omitempty"`   // SHA-256 in hex, of a robot's random secret
	Groups   []string  `json:"groups,omitempty"`
	Grants   []Grant   `json:"grants,omitempty"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires,omitzero"`
	Disabled bool      `json:"disabled,omitempty"`
}

// Robot tells whether the account is a program's.
func (a *Account) Robot() bool { return strings.HasPrefix(a.Name, RobotPrefix) }

func (a *Account) identity() Identity {
	return Identity{Name: a.Name, Groups: a.Groups, Grants: a.Grants, key: a.Password + a.Secret}
}

func (a *Account) verify(password string) bool {
	if a.Robot() {
		sum := sha256.Sum256([]byte(password))
		return subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(a.Secret)) == 1
	}
	return bcrypt.CompareHashAndPassword([]byte(a.Password), []byte(password)) == nil
}

// directory is what accounts.json holds.
type directory struct {
	Accounts []Account `json:"accounts"`
}

func (d *directory) account(name string) *Account {
	for i := range d.Accounts {
		if d.Accounts[i].Name == name {
			return &d.Accounts[i]
		}
	}
	return nil
}

// Accounts are the registry's own accounts. The command line changes the file while the registry runs, which reads it again.
type Accounts struct {
	path string
	file watched[*directory]
}

// OpenAccounts uses ROOT/accounts.json, which need not be there.
func OpenAccounts(root string) *Accounts {
	a := &Accounts{path: filepath.Join(root, "accounts.json")}
	a.file.parse = func(data []byte) (*directory, error) {
		d := &directory{}
		if len(data) == 0 {
			return d, nil
		}
		if err := json.Unmarshal(data, d); err != nil {
			return nil, fmt.Errorf("cannot read accounts %s: %w", a.path, err)
		}
		return d, nil
	}
	return a
}

func (a *Accounts) read() (*directory, error) {
	d, err := a.file.read(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return &directory{}, nil
	}
	return d, err
}

// List returns all accounts by name.
func (a *Accounts) List() ([]Account, error) {
	d, err := a.read()
	if err != nil {
		return nil, err
	}
	all := slices.Clone(d.Accounts)
	slices.SortFunc(all, func(x, y Account) int { return strings.Compare(x.Name, y.Name) })
	return all, nil
}

// change rewrites the file under a lock that other processes honour.
func (a *Accounts) change(f func(d *directory) error) error {
	lock, err := os.OpenFile(a.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cannot change accounts: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("cannot change accounts: %w", err)
	}
	d := &directory{}
	if data, err := os.ReadFile(a.path); err == nil {
		if err := json.Unmarshal(data, d); err != nil {
			return fmt.Errorf("cannot read accounts %s: %w", a.path, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := f(d); err != nil {
		return err
	}
	return files.WriteJSON(a.path, d, files.Synced)
}

var userName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._@-]{0,127}$`)

// SetUser makes or changes a user. An empty password keeps the old one; nil groups keep the old ones.
func (a *Accounts) SetUser(name, password string, groups []string) error {
	if !userName.MatchString(name) {
		return fault.Invalid("invalid user name %q: letters, digits, and . _ @ - within", name)
	}
	if len(password) > 72 {
		return fault.Invalid("a password may have 72 bytes")
	}
	return a.change(func(d *directory) error {
		u := d.account(name)
		if u == nil {
			if password == "" {
				return fault.Invalid("user %s needs a password", name)
			}
			d.Accounts = append(d.Accounts, Account{Name: name, Created: time.Now().UTC()})
			u = &d.Accounts[len(d.Accounts)-1]
		}
		if groups != nil {
			u.Groups = groups
		}
		if password == "" {
			return nil
		}
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
		u.Password = string(hash)
		return err
	})
}

var robotName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// AddRobot makes a robot, or gives one a new secret and grants, and returns its full name and the secret, which is kept nowhere.
func (a *Accounts) AddRobot(name string, grants []Grant, expires time.Time) (full, secret string, err error) {
	name = strings.TrimPrefix(name, RobotPrefix)
	if !robotName.MatchString(name) {
		return "", "", fault.Invalid("invalid robot name %q: small letters, digits, and . _ - within", name)
	}
	for _, g := range grants {
		for _, action := range g.Actions {
			if !slices.Contains([]string{Pull, Push, Delete, Admin}, action) {
				return "", "", fault.Invalid("invalid action %q: pull, push, delete or admin", action)
			}
		}
		if len(g.Repositories) == 0 || len(g.Actions) == 0 {
			return "", "", fault.Invalid("a robot needs repositories and actions")
		}
	}
	raw := make([]byte, 32)
	rand.Read(raw)
	secret = base64.RawURLEncoding.EncodeToString(raw)
	sum := sha256.Sum256([]byte(secret))
	full = RobotPrefix + name
	err = a.change(func(d *directory) error {
		r := d.account(full)
		if r == nil {
			d.Accounts = append(d.Accounts, Account{})
			r = &d.Accounts[len(d.Accounts)-1]
		}
		*r = Account{Name: full, Secret: hex.EncodeToString(sum[:]), Grants: grants, Created: time.Now().UTC(), Expires: expires}
		return nil
	})
	return full, secret, err
}

// Remove removes an account; NotFound if there is none.
func (a *Accounts) Remove(name string) error {
	return a.change(func(d *directory) error {
		n := len(d.Accounts)
		d.Accounts = slices.DeleteFunc(d.Accounts, func(x Account) bool { return x.Name == name })
		if len(d.Accounts) == n {
			return fault.NotFound("No such account: %s", name)
		}
		return nil
	})
}

// watched is a parsed file that is read again when it changed.
type watched[T any] struct {
	parse func(data []byte) (T, error)

	mu    sync.Mutex // guards all below
	stamp string
	value T
}

func (w *watched[T]) read(path string) (T, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	info, err := os.Stat(path)
	if err != nil {
		var none T
		w.stamp = ""
		return none, err
	}
	stamp := fmt.Sprint(info.ModTime().UnixNano(), info.Size())
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		stamp += fmt.Sprint(" ", st.Ino)
	}
	if stamp == w.stamp {
		return w.value, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		var none T
		return none, err
	}
	v, err := w.parse(data)
	if err != nil {
		return v, err
	}
	w.stamp, w.value = stamp, v
	return v, nil
}

// htpasswd is a file of name:hash lines, as apache's htpasswd -B writes it.
type htpasswd struct {
	path string
	file watched[map[string]string]
}

func (h *htpasswd) read() (map[string]string, error) {
	h.file.parse = func(data []byte) (map[string]string, error) { return parseHtpasswd(h.path, data) }
	m, err := h.file.read(h.path)
	if err != nil {
		return nil, fmt.Errorf("cannot read users: %w", err)
	}
	return m, nil
}

func parseHtpasswd(path string, data []byte) (map[string]string, error) {
	m := map[string]string{}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.HasPrefix(name, RobotPrefix) {
			return nil, fault.Invalid("%s:%d: not NAME:HASH", path, i+1)
		}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, fault.Invalid("%s:%d: the password of %s is not hashed with bcrypt; use htpasswd -B", path, i+1, name)
		}
		m[name] = hash
	}
	return m, nil
}
