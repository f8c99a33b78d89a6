package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/registry"
)

func TestCredentialsLiveInDockersFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("TARE_CONFIG", "")
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, []byte(`{"auths":{"https://reg.example/":{"auth":"dTpw"}},"detachKeys":"ctrl-x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var env Env
	c, err := env.Config()
	if err != nil {
		t.Fatal(err)
	}
	if a, err := c.Credentials("reg.example"); err != nil || a.Username != "u" || a.Password != "p" {
		t.Errorf("credentials under an URL: %+v, %v", a, err)
	}
	if _, err := c.Store(registry.AuthConfig{ServerAddress: "localhost:5000", Username: "me", Password: "s:e"}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), "ctrl-x") {
		t.Errorf("foreign keys are lost: %s, %v", data, err)
	}
	if c, err = env.Config(); err != nil {
		t.Fatal(err)
	}
	if a, err := c.Credentials("localhost:5000"); err != nil || a.Username != "me" || a.Password != "s:e" {
		t.Errorf("stored credentials: %+v, %v", a, err)
	}
	if known, err := c.Erase("localhost:5000"); err != nil || !known {
		t.Errorf("erase: %v, %v", known, err)
	}
	if known, err := c.Erase("localhost:5000"); err != nil || known {
		t.Errorf("second erase: %v, %v", known, err)
	}
}

func TestCredentialHelper(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	script := "#!/bin/sh\nread s\ncase $1-$s in\nget-known) echo '{\"Username\":\"<token>\",\"Secret\":\"tok\"}';;\n*) echo credentials not found in native keychain; exit 1;;\nesac\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-fake"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"credsStore":"fake"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var env Env
	c, err := env.Config()
	if err != nil {
		t.Fatal(err)
	}
	if a, err := c.Credentials("known"); err != nil || a.IdentityToken != "tok" {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := c.Credentials("unknown"); err != nil || a.Username != "" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestServerNames(t *testing.T) {
	for in, want := range map[string]string{"": hubServer, "docker.io": hubServer, "https://reg.example/": "reg.example", "localhost:5000": "localhost:5000"} {
		if got := Server(in); got != want {
			t.Errorf("Server(%q) = %q, want %q", in, got, want)
		}
	}
}
