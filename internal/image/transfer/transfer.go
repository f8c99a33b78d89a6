// Package transfer pulls and pushes images: the pipelines between a registry
// (package registry) and the store.
//
// A pull reads the manifest, then config and all layers at once; each layer goes through its bytes once:
//
//	registry (or what a killed pull left) ──▶ chunk ──▶ sha256 and blob file
//	                                            └─────▶ decompress ──▶ sha256 (diffID) and files
//
// Chunks are few and used again, so that a slow disk slows the download instead of filling the memory. Layers run
// side by side, the largest first, in a fixed number of slots.
//
//	flight    one layer on its way; pulls that want the same layer join it and see its progress. It
//	          is cancelled when the last of them is gone.
package transfer

import (
	"runtime"
	"time"

	"github.com/distribution/reference"

	"tare/internal/base/event"
	"tare/internal/image"
	"tare/internal/image/registry"
)

// Service pulls into and pushes from one store. It is safe for concurrent use.
type Service struct {
	store    *image.Store
	registry *registry.Client
	bus      *event.Bus
	slots    chan struct{} // a token per layer that is arriving
	uploads  int           // blobs of one push that move at a time
	flights  flights
	streams  streams

	lookForHelp time.Duration // how often a slow download looks whether it wants helpers
}

// Limits bound what moves at once; 0 is the default of each.
type Limits struct {
	Downloads int // layers that arrive at a time, of all pulls: twice the processors, at least 4
	Uploads   int // blobs of one push: 5
}

// New makes the service; it publishes image/pull and image/push to bus, which may be nil.
func New(s *image.Store, r *registry.Client, bus *event.Bus, l Limits) *Service {
	if l.Downloads == 0 {
		l.Downloads = max(4, 2*runtime.NumCPU())
	}
	if l.Uploads == 0 {
		l.Uploads = uploadsAtOnce
	}
	return &Service{store: s, registry: r, bus: bus, slots: make(chan struct{}, l.Downloads), uploads: l.Uploads, lookForHelp: lookForHelp}
}

// publish tells that a name was pulled or pushed, with Docker's attributes.
func (s *Service) publish(action string, ref reference.Named, labels map[string]string) {
	if s.bus == nil {
		return
	}
	attributes := map[string]string{}
	for k, v := range labels {
		attributes[k] = v
	}
	attributes["name"] = reference.FamiliarName(ref)
	s.bus.Publish(event.Event{Type: "image", Action: action, ID: reference.FamiliarString(ref), Attributes: attributes})
}
