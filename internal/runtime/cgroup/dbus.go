package cgroup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

const (
	systemd1     = "org.freedesktop.systemd1"
	systemd1Path = dbus.ObjectPath("/org/freedesktop/systemd1")
	manager      = systemd1 + ".Manager"
)

// dbusBus is systemd on the system's message bus, or on its own socket where there is none.
type dbusBus struct {
	conn *dbus.Conn
	dest string // "" on the private socket, which has no names
}

func systemBus() (bus, error) {
	if !hasSystemd() {
		return nil, errors.New("systemd does not manage this machine: cgroups in the form slice:prefix:name need it")
	}
	const private = "unix:path=/run/systemd/private"
	conn, err := dbus.ConnectSystemBus()
	if err == nil {
		return &dbusBus{conn, systemd1}, nil
	}
	own, ownErr := dbus.Dial(private)
	if ownErr == nil {
		if ownErr = own.Auth(nil); ownErr == nil {
			return &dbusBus{own, ""}, nil
		}
		own.Close()
	}
	return nil, errors.Join(err, ownErr)
}

func (b *dbusBus) close() { b.conn.Close() }

func (b *dbusBus) manager() dbus.BusObject { return b.conn.Object(b.dest, systemd1Path) }

// job makes a call that answers with a job and waits for its end.
func (b *dbusBus) job(ctx context.Context, method string, args ...any) error {
	if b.dest != "" { // the private socket sends all signals
		if err := b.conn.AddMatchSignal(dbus.WithMatchInterface(manager), dbus.WithMatchMember("JobRemoved"), dbus.WithMatchObjectPath(systemd1Path)); err != nil {
			return err
		}
		if err := b.manager().CallWithContext(ctx, manager+".Subscribe", 0).Err; err != nil && !isError(err, "AlreadySubscribed") {
			return err
		}
	}
	signals := make(chan *dbus.Signal, 64)
	b.conn.Signal(signals)
	defer b.conn.RemoveSignal(signals)
	var job dbus.ObjectPath
	if err := b.manager().CallWithContext(ctx, manager+"."+method, 0, args...).Store(&job); err != nil {
		return err
	}
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				return errors.New("the connection to systemd was lost")
			}
			if s.Name != manager+".JobRemoved" || len(s.Body) < 4 || s.Body[1] != job {
				continue
			}
			if result := s.Body[3]; result != "done" {
				return fmt.Errorf("systemd's job ended with %v", result)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("systemd did not finish its job: %w", ctx.Err())
		}
	}
}

func isError(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && strings.HasSuffix(e.Name, "."+name)
}

// dbusProperty is a (sv) of D-Bus.
type dbusProperty struct {
	Name  string
	Value dbus.Variant
}

func variants(props []property) []dbusProperty {
	list := make([]dbusProperty, len(props))
	for i, p := range props {
		list[i] = dbusProperty{p.Name, dbus.MakeVariant(p.Value)}
	}
	return list
}

func (b *dbusBus) start(ctx context.Context, unit string, props []property) error {
	type auxiliary struct {
		Name       string
		Properties []dbusProperty
	}
	err := b.job(ctx, "StartTransientUnit", unit, "fail", variants(props), []auxiliary{})
	if isError(err, "UnitExists") && strings.HasSuffix(unit, ".slice") {
		return b.set(ctx, unit, slicesOnly(props))
	}
	if isError(err, "UnitExists") {
		return &unitBusy{err.Error()}
	}
	return err
}

// slicesOnly leaves out what is for new units.
func slicesOnly(props []property) []property {
	var list []property
	for _, p := range props {
		switch p.Name {
		case "Description", "CollectMode", "DefaultDependencies", "Wants":
		default:
			list = append(list, p)
		}
	}
	return list
}

func (b *dbusBus) set(ctx context.Context, unit string, props []property) error {
	return b.manager().CallWithContext(ctx, manager+".SetUnitProperties", 0, unit, true, variants(props)).Err
}

func (b *dbusBus) stop(ctx context.Context, unit string) error {
	err := b.job(ctx, "StopUnit", unit, "replace")
	if isError(err, "NoSuchUnit") {
		return nil
	}
	_ = b.manager().CallWithContext(ctx, manager+".ResetFailedUnit", 0, unit).Err
	return err
}
