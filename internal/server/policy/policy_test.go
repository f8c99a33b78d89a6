package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var operations = []string{
	"GET /_ping", "HEAD /_ping", "GET /version", "GET /containers/json", "GET /containers/{id}/json", "GET /containers/{id}/logs", "GET /containers/{id}/archive",
	"HEAD /containers/{id}/archive", "GET /containers/{id}/export", "GET /containers/{id}/attach/ws", "GET /images/get", "POST /containers/create",
	"POST /containers/{id}/restart", "DELETE /containers/{id}",
}

func load(t *testing.T, text string) (*Policy, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path, operations)
}

func TestPolicy(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                    "GET /_ping, HEAD /_ping, GET /version",
		`{"allow":["observe"]}`: "GET /_ping, HEAD /_ping, GET /version, GET /containers/json, GET /containers/{id}/json",
		`{"allow":["POST /containers/{id}/restart","GET /containers/{id}/logs"]}`: "GET /_ping, HEAD /_ping, GET /version, GET /containers/{id}/logs, POST /containers/{id}/restart",
	} {
		p, err := load(t, text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, op := range operations {
			if p.Allows(op) {
				got = append(got, op)
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s allows %s\nwant %s", text, strings.Join(got, ", "), want)
		}
	}
}

func TestPolicyRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"allow":["GET /nope"]}`: `"GET /nope" is no operation of the engine`,
		`{"deny":[]}`:             `unknown field "deny"`,
		`{"allow":"observe"}`:     "cannot unmarshal",
		`x`:                       "invalid character",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	if _, err := Load("/nope", nil); err == nil {
		t.Error("a missing file is no error")
	}
}
