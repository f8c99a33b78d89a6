// Package swagger holds answers of an Engine API server against the
// descriptions that the module github.com/moby/moby/api carries: swagger.yaml for the
// newest version, docs/vX.YY.yaml for older ones.
//
//	spec       one version's description, with all references resolved
//	operation  one method and path of it
//	tolerance  a deviation that Docker's own engine shows and its clients expect
//
// A Checker loads a version's spec when the first answer of that version comes.
package swagger

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/go-openapi/spec"
	"gopkg.in/yaml.v3"
)

// newest is the version of swagger.yaml.
const newest = "1.56"

// Spec is one version of the API.
type Spec struct {
	Version    string
	operations []operation
}

type operation struct {
	id, method string
	path       *regexp.Regexp
	literal    int // length of the path's fixed parts: the more, the better the match
	responses  map[int]*spec.Schema
	produces   []string
}

// moduleDir finds the module in the cache of Go's modules.
var moduleDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil {
		return "", fmt.Errorf("cannot find the module github.com/moby/moby/api: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

var (
	specsMu sync.Mutex // guards specs
	specs   = map[string]*Spec{}
)

// Load returns the spec of a version ("" is the newest), from memory after the first time.
func Load(version string) (*Spec, error) {
	if version == "" {
		version = newest
	}
	specsMu.Lock()
	defer specsMu.Unlock()
	if s, ok := specs[version]; ok {
		return s, nil
	}
	dir, err := moduleDir()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "docs", "v"+version+".yaml")
	if version == newest {
		path = filepath.Join(dir, "swagger.yaml")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("no description of API version %s: %w", version, err)
	}
	s, err := parse(version, data)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	specs[version] = s
	return s, nil
}

func parse(version string, data []byte) (*Spec, error) {
	var tree any
	if err := yaml.Unmarshal(data, &tree); err != nil {
		return nil, err
	}
	prepared, err := json.Marshal(prepare(tree))
	if err != nil {
		return nil, err
	}
	var sw spec.Swagger
	if err := json.Unmarshal(prepared, &sw); err != nil {
		return nil, err
	}
	if err := spec.ExpandSpec(&sw, nil); err != nil {
		return nil, err
	}
	s := &Spec{Version: version}
	for path, item := range sw.Paths.Paths {
		re, literal := pathPattern(path)
		for method, op := range map[string]*spec.Operation{"GET": item.Get, "HEAD": item.Head, "POST": item.Post, "PUT": item.Put, "DELETE": item.Delete} {
			if op == nil {
				continue
			}
			o := operation{id: op.ID, method: method, path: re, literal: literal, responses: map[int]*spec.Schema{}, produces: op.Produces}
			for status, r := range op.Responses.StatusCodeResponses {
				o.responses[status] = r.Schema
			}
			s.operations = append(s.operations, o)
		}
	}
	return s, nil
}

// prepare makes JSON of YAML, and "nullable" of Docker's "x-nullable".
func prepare(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = prepare(e)
		}
		if v["x-nullable"] == true {
			m["nullable"] = true
		}
		return m
	case map[any]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[fmt.Sprint(k)] = prepare(e)
		}
		return m
	case []any:
		for i := range v {
			v[i] = prepare(v[i])
		}
	}
	return v
}

// pathPattern turns a path of the description into an expression; {name} of an image may have slashes.
func pathPattern(path string) (*regexp.Regexp, int) {
	var b strings.Builder
	b.WriteByte('^')
	literal := 0
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		b.WriteByte('/')
		switch {
		case !strings.HasPrefix(part, "{"):
			b.WriteString(regexp.QuoteMeta(part))
			literal += len(part)
		case part == "{name}":
			b.WriteString(".+")
		default:
			b.WriteString("[^/]+")
		}
	}
	b.WriteByte('$')
	return regexp.MustCompile(b.String()), literal
}

// find returns the operation of a request's path (without version), nil if the description has none.
func (s *Spec) find(method, path string) *operation {
	var best *operation
	for i := range s.operations {
		o := &s.operations[i]
		if o.method == method && o.path.MatchString(path) && (best == nil || o.literal > best.literal) {
			best = o
		}
	}
	return best
}

// Operations lists the ids of all operations.
func (s *Spec) Operations() []string {
	var ids []string
	for _, o := range s.operations {
		ids = append(ids, o.id)
	}
	return ids
}
