package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	c, err := Parse("r.yaml", []byte(`
root: /srv/registry
auth: {scheme: token, lifetime: 10m}
limits: {manifest: 1MiB, rate: 2.5, free: 1GB}
rights:
  - repositories: [public/**]
    anonymous: true
    actions: [pull]
retention:
  - repositories: [ci/**]
    for: 30d
gc: {grace: 90s}
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Limits.Manifest != 1<<20 || c.Limits.Free != 1e9 || c.Auth.Lifetime.Std() != 10*time.Minute || c.Limits.Burst != 3 ||
		c.Retention[0].For.Std() != 720*time.Hour || c.GC.Grace.Std() != 90*time.Second || c.Listen != DefaultListen {
		t.Errorf("%+v", c)
	}
}

func TestParseRefuses(t *testing.T) {
	for content, want := range map[string]string{
		"root: /x\nlisten_: a":              `r.yaml:2: unknown key "listen_"`,
		"root: /x\nauth:\n  realm: y":       `r.yaml:3: unknown key "realm"`,
		"root: /x\ncaches:\n  - upstrem: y": `r.yaml:3: unknown key "upstrem"`,
		"root: /x\nlimits:\n  blob: many":   `r.yaml:3: "many" is not a size such as 4MiB`,
		"root: /x\ngc: {grace: soon}":       `r.yaml:2: "soon" is not a time span`,
		"root: [":                           "r.yaml:1: ",
		"":                                  "root, the folder of the registry, is missing",
		"root: /x\n---\nroot: /y":           "one document is allowed",
		"root: /x\nlisten: here":            `listen: "here" is not host:port`,
		"root: /x\ntls: {cert: a}":          "cert and key belong together",
		"root: /x\nrights: [{}]":            "rights and htpasswd need scheme token or basic",
		"root: /x\nauth: {scheme: tokn}":    `auth.scheme: "tokn" is none of none, token, basic`,
		"root: /x\nauth: {scheme: token}\nrights: [{repositories: [a], actions: [pull]}]":                  "it needs users, groups or anonymous",
		"root: /x\nauth: {scheme: token}\nrights: [{repositories: [a], users: [u], actions: [pul]}]":       `rights[0].actions: "pul" is none of`,
		"root: /x\nauth: {scheme: basic}\nrights: [{repositories: [a], anonymous: true, actions: [pull]}]": "use auth.scheme token",
		"root: /x\nretention: [{repositories: [a]}]":                                                       "all tags would go",
		"root: /x\ncaches: [{upstream: 'http://x'}]":                                                       "not encrypted",
		"root: /x\ncaches: [{upstream: x}]":                                                                "is not https://host[:port]",
		"root: /x\nwebhooks: [{name: A, url: 'http://x'}]":                                                 "is not a word of its own",
		"root: /x\nroot: /y": "already defined at line 1",
	} {
		_, err := Parse("r.yaml", []byte(content))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}

// TestEveryKeyIsDocumented reads docs/registry.md: each key has a row of a table or a line of its own with `key`.
func TestEveryKeyIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/registry.md")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := prefix + f.Tag.Get("yaml")
			inner := f.Type
			if inner.Kind() == reflect.Slice {
				inner = inner.Elem()
				if inner.Kind() == reflect.Struct {
					key += "[]"
				}
			}
			if inner.Kind() == reflect.Struct {
				walk(key+".", inner)
				continue
			}
			if !strings.Contains(string(doc), "| `"+key+"` |") {
				t.Errorf("docs/registry.md has no row for `%s`", key)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("root: /x\nauth: {scheme: token}\nlimits: {blob: 1GiB}"))
	f.Fuzz(func(t *testing.T, data []byte) { Parse("f", data) })
}
