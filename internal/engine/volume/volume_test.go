package volume

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"

	"tare/internal/base/event"
	"tare/internal/base/filter"
)

func open(t *testing.T, root string) *Service {
	t.Helper()
	s, err := Open(root, &event.Bus{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLifeOfAVolume(t *testing.T) {
	ctx, root := context.Background(), filepath.Join(t.TempDir(), "volumes")
	s := open(t, root)
	v, err := s.Create(ctx, volume.CreateRequest{Name: "data", Labels: map[string]string{"a": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Create(ctx, volume.CreateRequest{Name: "data"}); err != nil || again.CreatedAt != v.CreatedAt {
		t.Errorf("create is not idempotent: %v %v", again, err)
	}
	anonymous, err := s.Create(ctx, volume.CreateRequest{})
	if err != nil || len(anonymous.Name) != 64 {
		t.Fatal(anonymous, err)
	}
	for _, bad := range []volume.CreateRequest{{Name: "x"}, {Name: "../up"}, {Name: "ok", Driver: "rexray"}, {Name: "ok", DriverOpts: map[string]string{"type": "nfs", "o": "addr=h", "device": ":/x"}}} {
		if _, err := s.Create(ctx, bad); err == nil {
			t.Errorf("created %+v", bad)
		}
	}
	if err := s.Hold("data", "c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "data", true); !errdefs.IsConflict(err) {
		t.Errorf("removed a held volume: %v", err)
	}
	os.WriteFile(filepath.Join(v.Mountpoint, "f"), make([]byte, 1000), 0o600)

	s = open(t, root) // a restart: volumes stay, holds are the owners'
	if got, err := s.Get("data"); err != nil || got.Labels["a"] != "1" || got.Mountpoint != v.Mountpoint {
		t.Fatalf("%+v %v", got, err)
	}
	if list, _ := s.List(filter.Args{"label": {"a=1"}}); len(list) != 1 {
		t.Errorf("label filter: %v", list)
	}
	s.Hold("data", "c1")
	if list, _ := s.List(filter.Args{"dangling": {"true"}}); len(list) != 1 || list[0].Name != anonymous.Name {
		t.Errorf("dangling filter: %v", list)
	}
	usage, err := s.Usage()
	if err != nil || len(usage) != 2 {
		t.Fatal(usage, err)
	}
	names, _, err := s.Prune(ctx, nil)
	if err != nil || len(names) != 1 || names[0] != anonymous.Name {
		t.Errorf("prune: %v %v", names, err)
	}
	s.Release("c1")
	if names, _, _ := s.Prune(ctx, nil); len(names) != 0 {
		t.Errorf("prune took a named volume: %v", names)
	}
	names, won, err := s.Prune(ctx, filter.Args{"all": {"1"}})
	if err != nil || len(names) != 1 || won != 4096 {
		t.Errorf("prune all: %v %d %v", names, won, err)
	}
	if err := s.Remove(ctx, "data", false); !errdefs.IsNotFound(err) {
		t.Errorf("want not found: %v", err)
	}
	if entries, _ := os.ReadDir(root); len(entries) != 0 {
		t.Errorf("left over: %v", entries)
	}
}

func TestOptionsBecomeMounts(t *testing.T) {
	s := open(t, t.TempDir())
	for _, c := range []struct {
		opts map[string]string
		want string
	}{
		{map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=5"}, "tmpfs"},
		{map[string]string{"type": "none", "device": "/srv", "o": "bind"}, ""},
	} {
		v, err := s.Create(context.Background(), volume.CreateRequest{DriverOpts: c.opts})
		if err != nil {
			t.Fatal(err)
		}
		src, err := s.Source(v.Name)
		if err != nil || src.FSType != c.want || c.want == "" && src.Path != "/srv" {
			t.Errorf("%v: %+v %v", c.opts, src, err)
		}
	}
}

func TestPopulateOnce(t *testing.T) {
	s := open(t, t.TempDir())
	v, _ := s.Create(context.Background(), volume.CreateRequest{Name: "vol"})
	fill := 0
	f := func(dir string) error { fill++; return os.WriteFile(filepath.Join(dir, "x"), nil, 0o600) }
	for range 2 {
		if err := s.Populate("vol", f); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(filepath.Join(v.Mountpoint, "x"))
	s.Populate("vol", f)
	if fill != 1 {
		t.Errorf("filled %d times", fill)
	}
}
