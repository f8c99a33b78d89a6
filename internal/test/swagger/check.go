package swagger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	openapierrors "github.com/go-openapi/errors"
	"github.com/go-openapi/spec"
	"github.com/go-openapi/strfmt"
	"github.com/go-openapi/validate"
)

// Checker collects what it saw. Its methods are safe for concurrent use.
type Checker struct {
	mu       sync.Mutex // guards all below
	seen     map[string]int
	problems []string
}

// Seen counts the answers per operation.
func (c *Checker) Seen() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.seen)
}

// Problems lists the deviations so far, each once.
func (c *Checker) Problems() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.problems)
}

func (c *Checker) problem(format string, args ...any) {
	p := fmt.Sprintf(format, args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.problems, p) {
		c.problems = append(c.problems, p)
	}
}

// Answer is what is known of an answer when its headers are there.
type Answer struct {
	Method string
	Path   string // with version, without query
	Status int
	Header http.Header
}

// Body takes an answer's body piece by piece; Close checks what is left.
type Body struct {
	c       *Checker
	label   string
	schema  *spec.Schema
	lines   bool // each line is checked by itself
	skip    bool // no JSON
	buf     bytes.Buffer
	checked bool
}

// maxBody limits what is kept of a body.
const maxBody = 64 << 20

// Begin checks status and headers of an answer and returns where its body goes.
func (c *Checker) Begin(a Answer) *Body {
	version, path := "", a.Path
	if rest, ok := strings.CutPrefix(path, "/v"); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
		version, path, _ = strings.Cut(rest, "/")
		path = "/" + path
	}
	b := &Body{c: c, label: fmt.Sprintf("%s %s: %d", a.Method, a.Path, a.Status), skip: true}
	if version != "" && !known(version) {
		return b
	}
	s, err := Load(version)
	if err != nil {
		c.problem("%s: %v", b.label, err)
		return b
	}
	b.label = fmt.Sprintf("v%s %s %s: %d", s.Version, a.Method, path, a.Status)
	op := s.find(a.Method, path)
	if op == nil {
		if own.MatchString(a.Method+" "+path) && a.Status < 400 {
			return b
		}
		// Not described: routes that only answer that they aren't there, or don't do it.
		if a.Status < 400 && !undescribed[a.Method+" "+path] {
			c.problem("%s: the description has no such operation", b.label)
		}
		if a.Status == http.StatusSwitchingProtocols {
			return b
		}
		b.schema = errorSchema
	} else {
		c.mu.Lock()
		if c.seen == nil {
			c.seen = map[string]int{}
		}
		c.seen[op.id]++
		c.mu.Unlock()
		schema, described := op.responses[a.Status]
		switch {
		case described:
			b.schema = schema
		case a.Status >= 400:
			b.schema = errorSchema // see tolerances
		case a.Status == http.StatusSwitchingProtocols || a.Status == http.StatusNotModified:
			return b
		default:
			c.problem("%s: the description of %s has no such status", b.label, op.id)
			return b
		}
		if a.Status >= 400 && a.Status != 499 {
			b.schema = errorSchema
		}
		if l, ok := lineSchemas(s)[op.id]; ok && a.Status < 300 {
			b.schema, b.lines = l, true
		}
	}
	ct := a.Header.Get("Content-Type")
	if a.Method == http.MethodHead || a.Status == 499 || a.Status == http.StatusNoContent || a.Status == http.StatusNotModified {
		return b
	}
	if b.schema == nil {
		return b
	}
	if !strings.Contains(ct, "json") {
		// Plain text and tars have a type string or none in the description.
		if b.schema.Type.Contains("string") || len(b.schema.Type) == 0 {
			return b
		}
		c.problem("%s: the answer is %q, not JSON", b.label, ct)
		return b
	}
	if b.schema.Type.Contains("string") && b.schema.Format == "binary" {
		return b
	}
	b.skip = false
	return b
}

func (b *Body) Write(p []byte) (int, error) {
	if b.skip {
		return len(p), nil
	}
	if b.buf.Len()+len(p) > maxBody {
		b.skip = true
		return len(p), nil
	}
	b.buf.Write(p)
	for b.lines {
		i := bytes.IndexByte(b.buf.Bytes(), '\n')
		if i < 0 {
			break
		}
		b.check(b.buf.Next(i + 1))
	}
	return len(p), nil
}

// Close checks the rest. An answer that was cut (whole is false) is not checked further.
func (b *Body) Close(whole bool) {
	if b.skip || !whole {
		return
	}
	if rest := bytes.TrimSpace(b.buf.Bytes()); len(rest) > 0 {
		b.check(rest)
	} else if !b.checked && !b.lines {
		b.c.problem("%s: the body is empty", b.label)
	}
}

func (b *Body) check(data []byte) {
	b.checked = true
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte{0x1e}))
	if len(data) == 0 {
		return
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		b.c.problem("%s: no JSON: %v: %.200s", b.label, err, data)
		return
	}
	for _, err := range deviations(b.schema, v) {
		if !tolerated(err) {
			b.c.problem("%s: %v", b.label, err)
		}
	}
}

func deviations(schema *spec.Schema, v any) []error {
	res := validate.NewSchemaValidator(schema, nil, "", strfmt.Default).Validate(v)
	if res == nil {
		return nil
	}
	var flat []error
	for _, err := range res.Errors {
		flat = append(flat, flatten(err)...)
	}
	return flat
}

func flatten(err error) []error {
	var c *openapierrors.CompositeError
	if errors.As(err, &c) {
		var flat []error
		for _, e := range c.Errors {
			flat = append(flat, flatten(e)...)
		}
		return flat
	}
	if strings.Contains(err.Error(), "must validate all the schemas (allOf)") {
		return nil // it only says that one of the other deviations is inside
	}
	return []error{err}
}
