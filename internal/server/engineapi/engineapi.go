// Package engineapi is the door that speaks Docker's Engine API: HTTP and JSON
// outside, plain Go calls inside.
//
//	route      method, path pattern, handler: one line of the table in routes.go
//	handler    decodes the request, calls one service, encodes the answer
//	door       a few handlers of one group and the interface of the service they call
//	version    of the API, from the path (/v1.50/…); handlers speak the newest only,
//	           package compat rewrites requests and answers of older ones
//	stream     an answer that goes on: frames, JSON lines, or a hijacked connection
//
// Every error becomes {"message": …} with the status of its class (status.go). A handler's
// context ends when its client goes away.
package engineapi

import (
	"net/http"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"

	"tare/internal/base/event"
)

// The API versions served. MaxVersion is the one whose types github.com/moby/moby/api defines.
const (
	MinVersion = "1.24"
	MaxVersion = "1.56"
)

// Services are what the doors open to. Events, Info and Version must be set; all others too
// for the routes that use them.
type Services struct {
	Containers containerService
	Execs      execService
	Images     imageStore
	Archives   imageArchives
	Transfers  transferService
	Moves      imageHistory
	Verifier   imageVerifier
	Attached   attachedStore
	Registry   registryService
	Commits    commitService
	Networks   networkService
	Volumes    volumeService
	Builds     buildService
	Events     *event.Bus

	// Info answers GET /info except for the counts of containers, images and listeners; Version GET /version.
	Info    func() system.Info
	Version func() system.VersionResponse
	// DefaultAuth is used where a request carries no credentials; nil: none.
	DefaultAuth *registry.AuthConfig
	// Allows tells which operations, "METHOD /path" each, may be done; nil: all. By names who says so.
	Allows func(operation string) bool
	By     string
	// Debugf logs a line about requests; nil: none.
	Debugf func(format string, args ...any)
}

// New returns the handler of all routes.
func New(s Services) http.Handler {
	r := &router{debugf: s.Debugf, allows: s.Allows, by: s.By, server: "Tare/" + s.Version().Version + " (linux)"}
	if r.debugf == nil {
		r.debugf = func(string, ...any) {}
	}
	for _, rt := range routes(s) {
		r.add(rt)
	}
	return r
}

// Operations is every operation, "METHOD /path" each, as the API's description writes them.
func Operations() []string {
	var out []string
	for _, rt := range routes(Services{}) {
		out = append(out, rt.operation())
	}
	return out
}
