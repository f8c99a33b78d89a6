// Package policy is what a limited socket may do: an allow-list of API operations in a file.
//
//	{
//	  "group": "monitoring",
//	  "allow": ["observe", "POST /containers/{id}/restart"]
//	}
//
// An entry is an operation as the API's description writes it, METHOD and path, or "observe": all that
// lists, inspects and measures, but neither hands out files or output nor changes anything. What is not allowed
// is refused; what tells client and engine apart (/_ping, /version) is always allowed.
package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Observe is the entry that stands for all operations that only look.
const Observe = "observe"

// Policy is a file's content.
type Policy struct {
	// Path of the file, for messages.
	Path string
	// Group that may connect to a unix socket, by name or number; "": root only.
	Group string
	allow map[string]bool
}

// always is what every client needs before anything else.
var always = []string{"GET /_ping", "HEAD /_ping", "GET /version"}

// contents are ends of paths of GET operations that hand out what is in containers and images.
var contents = []string{"/archive", "/export", "/get", "/logs", "/attach/ws"}

// Load reads a policy. operations is all that the engine knows, "METHOD /path" each: an entry that is none of them is an error.
func Load(path string, operations []string) (*Policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy of a limited host: %w", err)
	}
	var file struct {
		Group string   `json:"group"`
		Allow []string `json:"allow"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, fmt.Errorf("policy %s: %w", path, err)
	}
	p := &Policy{Path: path, Group: file.Group, allow: map[string]bool{}}
	for _, op := range always {
		p.allow[op] = true
	}
	for _, entry := range file.Allow {
		switch {
		case entry == Observe:
			for _, op := range operations {
				p.allow[op] = p.allow[op] || looks(op)
			}
		case slices.Contains(operations, entry):
			p.allow[entry] = true
		default:
			return nil, fmt.Errorf("policy %s: %q is no operation of the engine: want %q, or METHOD and path as in GET /containers/{id}/json", path, entry, Observe)
		}
	}
	return p, nil
}

// looks tells whether an operation only looks.
func looks(operation string) bool {
	method, path, _ := strings.Cut(operation, " ")
	if method != "GET" && method != "HEAD" {
		return false
	}
	return !slices.ContainsFunc(contents, func(end string) bool { return strings.HasSuffix(path, end) })
}

// Allows tells whether an operation, "METHOD /path", may be done.
func (p *Policy) Allows(operation string) bool { return p.allow[operation] }
