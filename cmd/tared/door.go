package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"tare/internal/server/config"
	"tare/internal/server/engineapi"
	"tare/internal/server/listen"
	"tare/internal/server/policy"
)

// door is a socket and what may be done on it.
type door struct {
	listener net.Listener
	policy   *policy.Policy // nil: everything
	server   *http.Server
}

// limitedDoors opens the sockets that have a policy. Those that were opened are returned with an error, too.
func limitedDoors(cfg *config.Config) (doors []door, err error) {
	for host, file := range cfg.LimitedHosts {
		p, err := policy.Load(file, engineapi.Operations())
		if err != nil {
			return doors, err
		}
		l, err := listen.Limited(strings.TrimPrefix(host, "unix://"), p.Group)
		if err != nil {
			return doors, err
		}
		doors = append(doors, door{listener: l, policy: p})
	}
	return doors, nil
}

func closeDoors(doors []door) {
	for _, d := range doors {
		d.listener.Close()
	}
}

// open serves the API; failed gets the error that ends it.
func (d *door) open(base context.Context, s engineapi.Services, failed chan<- error) {
	if d.policy != nil {
		s.Allows, s.By = d.policy.Allows, "policy "+d.policy.Path
	}
	d.server = &http.Server{
		Handler: engineapi.New(s), BaseContext: func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	slog.Info("API listen on", "address", d.listener.Addr().String(), "limited", d.policy != nil)
	go func() { failed <- d.server.Serve(d.listener) }()
}

// shut ends what is going on, at the deadline by force.
func (d *door) shut(deadline context.Context) {
	if d.server.Shutdown(deadline) != nil {
		d.server.Close()
	}
}
