package compat

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestLess(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{{"1.9", "1.24", true}, {"1.24", "1.9", false}, {"1.50", "1.50", false}, {"1", "1.1", true}, {"2.0", "1.99", false}} {
		if Less(tt.a, tt.b) != tt.want {
			t.Errorf("Less(%s, %s) is not %v", tt.a, tt.b, tt.want)
		}
	}
}

// call answers a request of a version with body, and returns what the client gets and what the handler got.
func call(t *testing.T, version, route, path, sent, body string) (got, request string) {
	t.Helper()
	method, _, _ := strings.Cut(route, " ")
	r := httptest.NewRequest(method, path, strings.NewReader(sent))
	w := httptest.NewRecorder()
	err := Wrap(w, r, route, version, func(w http.ResponseWriter, r *http.Request) error {
		data, _ := io.ReadAll(r.Body)
		request = string(data)
		if request == "" {
			request = r.URL.RawQuery
		}
		_, err := io.WriteString(w, body)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(w.Body.String()), request
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct{ version, route, body, want string }{
		{"1.50", "GET /images/json", `[{"Id":"a","Size":5,"Containers":2}]`, `[{"Id":"a","Size":5,"Containers":-1}]`},
		{"1.43", "GET /images/json", `[{"Id":"a","Size":5,"Containers":2}]`, `[{"Id":"a","Size":5,"Containers":-1,"VirtualSize":5}]`},
		{"1.51", "GET /images/json", `[]`, `[]`},
		{"1.24", "GET /images/json", `[]`, `[]`},
		{"1.52", "GET /system/df", `{"ImageUsage":{"TotalSize":7,"Items":[{"Id":"a"}]}}`,
			`{"LayersSize":7,"Images":[{"Id":"a"}],"Containers":null,"Volumes":null,"BuildCache":null,"ImageUsage":{"TotalSize":7,"Items":[{"Id":"a"}]}}`},
		{"1.41", "GET /system/df", `{"ImageUsage":{"TotalSize":7,"Items":[]},"BuildCacheUsage":{"Items":[{"Size":3},{"Size":4,"Shared":true}]}}`,
			`{"LayersSize":7,"Images":[],"Containers":null,"Volumes":null,"BuildCache":[{"Size":3},{"Size":4,"Shared":true}],"BuilderSize":3}`},
		{"1.48", "GET /info", `{"RuncCommit":{"ID":"r"}}`,
			`{"RuncCommit":{"ID":"r","Expected":"r"},"KernelMemoryTCP":false,"BridgeNfIptables":false,"BridgeNfIp6tables":false,"ContainerdCommit":{"Expected":""},"InitCommit":{"Expected":""}}`},
	} {
		if got, _ := call(t, tt.version, tt.route, "/", "", tt.body); got != tt.want {
			t.Errorf("%s of %s:\n%s\nwant\n%s", tt.route, tt.version, got, tt.want)
		}
	}
}

func TestRequests(t *testing.T) {
	const create = "POST /containers/create"
	for _, tt := range []struct{ version, route, path, sent, want string }{
		{"1.51", create, "/", `{"Image":"i","MacAddress":"m"}`, `{"Image":"i","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"m"}}}}`},
		{"1.51", create, "/", `{"MacAddress":"m","HostConfig":{"NetworkMode":"n"},"NetworkingConfig":{"EndpointsConfig":{"n":{"Aliases":["x"]}}}}`,
			`{"HostConfig":{"NetworkMode":"n"},"NetworkingConfig":{"EndpointsConfig":{"n":{"Aliases":["x"],"MacAddress":"m"}}}}`},
		{"1.52", create, "/", `{"MacAddress":"m"}`, `{"MacAddress":"m"}`},
		{"1.51", create, "/", `not JSON`, `not JSON`},
		{"1.51", create, "/", `["no object"]`, `["no object"]`},
		{"1.41", "POST /volumes/prune", "/", "", "filters=%7B%22all%22%3A%5B%22true%22%5D%7D"},
		{"1.42", "POST /volumes/prune", "/", "", ""},
		{"1.47", "POST /build/prune", "/?keep-storage=5", "", "keep-storage=5&reserved-space=5"},
		{"1.40", "GET /system/df", "/", "", "verbose=1"},
	} {
		if _, got := call(t, tt.version, tt.route, tt.path, tt.sent, "{}"); got != tt.want {
			t.Errorf("%s of %s: the handler got %s, want %s", tt.route, tt.version, got, tt.want)
		}
	}
}

// Adapters stand from the newest version to the oldest, which is the order they are applied in.
func TestTableIsOrdered(t *testing.T) {
	for i := 1; i < len(adapters); i++ {
		if Less(adapters[i-1].below, adapters[i].below) {
			t.Errorf("%s below %s stands after one below %s", adapters[i].route, adapters[i].below, adapters[i-1].below)
		}
	}
}

func FuzzObject(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":{"c":[null]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := parseObject(data)
		if err != nil {
			return
		}
		again, err := parseObject(o.encode())
		if err != nil || len(again) != len(o) {
			t.Errorf("%q became %q: %v", data, o.encode(), err)
		}
	})
}
