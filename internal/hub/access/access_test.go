package access

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/bcrypt"

	"tare/internal/hub/config"
)

func open(t *testing.T, root, yaml string) *Control {
	t.Helper()
	c, err := config.Parse("test", []byte("root: "+root+"\n"+yaml))
	if err != nil {
		t.Fatal(err)
	}
	control, err := Open(root, c)
	if err != nil {
		t.Fatal(err)
	}
	return control
}

func TestAllowed(t *testing.T) {
	c := open(t, t.TempDir(), `
auth: {scheme: token}
rights:
  - {repositories: [public/**], anonymous: true, actions: [pull]}
  - {repositories: [team/*], groups: [devs], actions: [pull, push]}
  - {repositories: ["home/${user}/**"], users: ["*"], actions: [pull, push, delete]}
  - {repositories: ["**"], users: [root], actions: [admin]}
`)
	nobody, ann, dev, root := Identity{}, Identity{Name: "ann"}, Identity{Name: "dan", Groups: []string{"devs"}}, Identity{Name: "root"}
	robot := Identity{Name: "robot$ci", Grants: []Grant{{Repositories: []string{"ci/*"}, Actions: []string{"push"}}}}
	star := Identity{Name: "*"}
	for _, w := range []struct {
		id         Identity
		repository string
		actions    string // allowed
	}{
		{nobody, "public/a/b", "pull"}, {nobody, "public", ""}, {nobody, "team/a", ""}, {nobody, "home/ann/x", ""},
		{ann, "public/a", "pull"}, {ann, "home/ann/x", "pull push delete"}, {ann, "home/bob/x", ""}, {ann, "team/a", ""},
		{dev, "team/a", "pull push"}, {dev, "team/a/b", ""},
		{root, "anything/at/all", "pull push delete admin"},
		{robot, "ci/x", "push"}, {robot, "ci/x/y", ""}, {robot, "home/robot$ci/x", ""}, {robot, "public/x", "pull"},
		{star, "home/ann/x", ""},
	} {
		var got []string
		for _, a := range []string{Pull, Push, Delete, Admin} {
			if c.Allowed(w.id, w.repository, a) {
				got = append(got, a)
			}
		}
		if strings.Join(got, " ") != w.actions {
			t.Errorf("%q in %s may %v, want %q", w.id.Name, w.repository, got, w.actions)
		}
	}
}

func TestAccounts(t *testing.T) {
	root := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("apple"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "htpasswd")
	if err := os.WriteFile(path, []byte("# people\n\nhal:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, root, "auth: {scheme: token, htpasswd: "+path+"}")
	other := OpenAccounts(root) // as the command line does
	if err := other.SetUser("ann", "pear", []string{"devs"}); err != nil {
		t.Fatal(err)
	}
	name, secret, err := other.AddRobot("ci", []Grant{{Repositories: []string{"a"}, Actions: []string{"pull"}}}, time.Time{})
	if err != nil || name != "robot$ci" {
		t.Fatal(name, err)
	}
	_, old, err := other.AddRobot("old", []Grant{{Repositories: []string{"a"}, Actions: []string{"pull"}}}, time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	check := func(name, password string, want bool) {
		t.Helper()
		if id, err := c.Check(name, password); (err == nil) != want || err == nil && id.Name != name {
			t.Errorf("%s with %q: %v %v", name, password, id, err)
		}
	}
	check("hal", "apple", true)
	check("hal", "pear", false)
	check("ann", "pear", true)
	check("ann", "", false)
	check("robot$ci", secret, true)
	check("robot$ci", "x", false)
	check("robot$old", old, false)
	check("nobody", "x", false)
	check("", "", false)
	refresh, err := c.Tokens.IssueRefresh(must(c.Check("ann", "pear")))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := c.Refresh(refresh); err != nil || id.Name != "ann" || id.Groups[0] != "devs" {
		t.Error(id, err)
	}
	if _, err := c.Tokens.Verify(refresh); err == nil {
		t.Error("an identity token passed as an access token")
	}
	if err := other.SetUser("ann", "plum", nil); err != nil {
		t.Fatal(err)
	}
	check("ann", "pear", false) // though it was right a moment ago
	check("ann", "plum", true)
	if _, err := c.Refresh(refresh); err == nil {
		t.Error("an identity token outlived the password")
	}
	if err := other.Remove("ann"); err != nil {
		t.Fatal(err)
	}
	check("ann", "plum", false)
	if err := other.Remove("ann"); err == nil {
		t.Error("removed twice")
	}
	if err := os.WriteFile(path, []byte("hal:{SHA}xx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check("hal", "apple"); err == nil || !strings.Contains(err.Error(), "not hashed with bcrypt") {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(root, "accounts.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
}

func must(id Identity, err error) Identity {
	if err != nil {
		panic(err)
	}
	return id
}

func TestTokens(t *testing.T) {
	root := t.TempDir()
	c := open(t, root, "auth: {scheme: token}\nrights: [{repositories: [a/*], users: [ann], actions: [pull]}]")
	ann := Identity{Name: "ann"}
	var wanted []Access
	for _, s := range []string{"repository:a/x:pull,push", "repository:b:pull", "registry:catalog:*", "repository:a/y:*"} {
		a, ok := ParseScope(s)
		if !ok {
			t.Fatal(s)
		}
		wanted = append(wanted, a)
	}
	token, _, err := c.Tokens.Issue(ann, c.Cut(ann, wanted))
	if err != nil {
		t.Fatal(err)
	}
	claims, err := c.Tokens.Verify(token)
	if err != nil || claims.Subject != "ann" {
		t.Fatal(claims, err)
	}
	for what, want := range map[[2]string]bool{{"a/x", Pull}: true, {"a/x", Push}: false, {"b", Pull}: false, {"a/y", Pull}: true, {"a/y", Delete}: false} {
		if claims.Grants(what[0], what[1]) != want {
			t.Errorf("%v: %v", what, !want)
		}
	}
	// The key is kept; another registry's is no good.
	if _, err := open(t, root, "auth: {scheme: token}").Tokens.Verify(token); err != nil {
		t.Error(err)
	}
	if _, err := open(t, t.TempDir(), "auth: {scheme: token}").Tokens.Verify(token); err == nil {
		t.Error("a stranger's token passed")
	}
	none := jwt.NewWithClaims(jwt.SigningMethodNone, claims)
	unsigned, err := none.SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	claims.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-time.Second))
	stale, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(c.Tokens.key)
	if err != nil {
		t.Fatal(err)
	}
	symmetric, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{"unsigned": unsigned, "stale": stale, "symmetric": symmetric, "empty": "", "cut": token[:len(token)-4]} {
		if _, err := c.Tokens.Verify(bad); err == nil {
			t.Errorf("%s passed", name)
		}
	}
}

func FuzzParseScope(f *testing.F) {
	f.Add("repository:a/b:pull,push")
	f.Add("repository:h:5000/a:*")
	f.Fuzz(func(t *testing.T, s string) {
		if a, ok := ParseScope(s); ok && (a.Name == "" || a.Type == "") {
			t.Errorf("%q: %+v", s, a)
		}
	})
}

func FuzzHtpasswd(f *testing.F) {
	f.Add([]byte("a:$2y$05$abc\n"))
	f.Fuzz(func(t *testing.T, data []byte) { parseHtpasswd("f", data) })
}
