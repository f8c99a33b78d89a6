package swagger

import (
	"net/http"
	"strings"
	"testing"
)

func TestChecker(t *testing.T) {
	json := http.Header{"Content-Type": {"application/json"}}
	for _, tt := range []struct {
		name, method, path string
		status             int
		header             http.Header
		body, want         string // want "": no deviation
	}{
		{"good", "GET", "/v1.50/version", 200, json, `{"Version":"1"}`, ""},
		{"wrong type", "GET", "/v1.50/version", 200, json, `{"Version":1}`, "Version in body must be of type string"},
		{"newest", "GET", "/volumes/v", 200, json, `{"Name":"v"}`, "Driver in body is required"},
		{"null list", "POST", "/v1.50/containers/create", 201, json, `{"Id":"x","Warnings":null}`, ""},
		{"error body", "GET", "/containers/x/json", 404, json, `{"error":"x"}`, "message in body is required"},
		{"status", "GET", "/containers/x/json", 202, json, `{}`, "no such status"},
		{"no such operation", "GET", "/nonsense", 200, json, `{}`, "no such operation"},
		{"unknown page", "GET", "/nonsense", 404, json, `{"message":"page not found"}`, ""},
		{"image name", "GET", "/images/a:5000/b/c:d/json", 404, json, `{"message":"No such image"}`, ""},
		{"lines", "POST", "/v1.50/images/create", 200, json, "{\"status\":\"a\"}\r\n{\"status\":1}\r\n", "status in body must be of type string"},
		{"event", "GET", "/v1.50/events", 200, json, "{\"Type\":\"x\"}\n", "Type in body should be one of"},
		{"not JSON", "GET", "/info", 200, json, "hello", "no JSON"},
		{"empty", "GET", "/info", 200, json, "", "the body is empty"},
		{"tar", "GET", "/containers/x/export", 200, http.Header{"Content-Type": {"application/x-tar"}}, "tar", ""},
		{"ping", "GET", "/_ping", 200, http.Header{"Content-Type": {"text/plain"}}, "OK", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &Checker{}
			b := c.Begin(Answer{tt.method, tt.path, tt.status, tt.header})
			b.Write([]byte(tt.body))
			b.Close(true)
			got := strings.Join(c.Problems(), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Every version that comes as YAML can be read.
func TestVersions(t *testing.T) {
	for _, v := range []string{"1.25", "1.40", "1.44", "1.50", "1.51", "1.52", ""} {
		s, err := Load(v)
		if err != nil {
			t.Errorf("%s: %v", v, err)
		} else if len(s.Operations()) < 80 {
			t.Errorf("%s has only %d operations", v, len(s.Operations()))
		}
	}
}
