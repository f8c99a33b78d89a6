package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/event"
	"tare/internal/base/files"
	"tare/internal/base/filter"
	"tare/internal/image/layer"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func tag(t testing.TB, name string) reference.NamedTagged {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return reference.TagNameOnly(n).(reference.NamedTagged)
}

// oneFile is a layer's tar with one file.
func oneFile(t testing.TB, name, body string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(body))
	w.Close()
	return b.Bytes()
}

func commit(t testing.TB, s *Store, body string) layer.Layer {
	t.Helper()
	l, err := s.CommitTar(context.Background(), bytes.NewReader(oneFile(t, "file", body)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func config(labels ...string) *Config {
	c := &Config{}
	c.OS, c.Architecture = "linux", "amd64"
	c.Config.Labels = map[string]string{}
	for _, l := range labels {
		c.Config.Labels[l] = "1"
	}
	at := time.Unix(1700000000, 0).UTC()
	c.Created = &at
	return c
}

// put makes an image of layers with the given contents.
func put(t testing.TB, s *Store, names []string, bodies ...string) *Image {
	t.Helper()
	var ls []layer.Layer
	for _, b := range bodies {
		ls = append(ls, commit(t, s, b))
	}
	var tags []reference.NamedTagged
	for _, n := range names {
		tags = append(tags, tag(t, n))
	}
	img, err := s.Put(config("l-"+bodies[0]), ls, tags...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// inventory is what lies in the store besides index.json.
func inventory(t testing.TB, s *Store) (blobs, layers int) {
	t.Helper()
	s.Blobs.Walk(func(digest.Digest, int64) error { blobs++; return nil })
	s.Layers.Walk(func(layer.Layer) error { layers++; return nil })
	return blobs, layers
}

func TestNamesAndRestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	img := put(t, s, []string{"web", "localhost:5000/web:v1"}, "a", "b")
	again := put(t, s, []string{"web:two"}, "a", "b")
	if again.ID != img.ID || again.Target.Digest != img.Target.Digest {
		t.Error("the same config and layers gave another image")
	}
	other := put(t, s, []string{"other"}, "c")
	check := func(s *Store) {
		t.Helper()
		for _, ref := range []string{"web", "web:latest", "docker.io/library/web", "web:two", "localhost:5000/web:v1",
			img.ID.String(), img.ID.Encoded(), img.ID.Encoded()[:12], "sha256:" + img.ID.Encoded()[:7]} {
			got, err := s.Get(ref)
			if err != nil || got.ID != img.ID {
				t.Errorf("%s: %v", ref, err)
				continue
			}
			if diff := cmp.Diff([]string{"localhost:5000/web:v1", "web:latest", "web:two"}, got.Names); diff != "" {
				t.Error(diff)
			}
			if got.Size != 2 || len(got.Layers) != 2 || got.Tagged.IsZero() {
				t.Errorf("%+v", got)
			}
		}
		if got, _ := s.Get("other"); got == nil || got.ID != other.ID {
			t.Error("other is not there")
		}
		if n := len(s.List()); n != 2 {
			t.Errorf("%d images", n)
		}
		lower, err := s.Lower(img)
		if err != nil || len(lower) != 2 {
			t.Fatal(lower, err)
		}
		if b, err := os.ReadFile(filepath.Join(lower[0], "file")); string(b) != "b" {
			t.Error("topmost is not first", err)
		}
	}
	check(s)
	s.Close()
	check(open(t, dir))

	for ref, want := range map[string]string{
		"nope":                   "No such image: nope:latest",
		"nope:1":                 "No such image: nope:1",
		"sha256:" + zeros:        "No such image: sha256:" + zeros,
		"web@sha256:" + zeros:    "No such image: web@sha256:" + zeros,
		"deadbeef":               "No such image: deadbeef:latest",
		"localhost:5000/web":     "No such image: localhost:5000/web:latest",
		"docker.io/library/nope": "No such image: nope:latest",
	} {
		if _, err := s.Get(ref); !errdefs.IsNotFound(err) || err.Error() != want {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, ref := range []string{"Web", "a b", "", "x:y:z"} {
		if _, err := s.Get(ref); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

var zeros = strings.Repeat("0", 64)

func TestScratchImageHasAFolder(t *testing.T) {
	s := open(t, t.TempDir())
	img, err := s.Put(config(), nil, tag(t, "scratchy"))
	if err != nil {
		t.Fatal(err)
	}
	lower, err := s.Lower(img)
	if err != nil || len(lower) != 1 {
		t.Fatal(lower, err)
	}
	if _, err := os.Stat(lower[0]); err != nil {
		t.Error(err)
	}
}

func TestMovedNameLeavesDangling(t *testing.T) {
	s := open(t, t.TempDir())
	old := put(t, s, []string{"app"}, "1")
	new := put(t, s, []string{"app"}, "2")
	got, err := s.Get(old.ID.String())
	if err != nil || len(got.Names) != 0 {
		t.Fatal(got, err)
	}
	if n := len(s.List()); n != 2 {
		t.Errorf("%d images", n)
	}
	removed, bytes, err := s.Prune(filter.Args{})
	if err != nil || bytes <= 0 {
		t.Fatal(bytes, err)
	}
	want := []Removed{{Deleted: old.ID.String()}, {Deleted: old.Layers[0].DiffID.String()}}
	if diff := cmp.Diff(want, removed); diff != "" {
		t.Error(diff)
	}
	if got, err := s.Get("app"); err != nil || got.ID != new.ID {
		t.Error(got, err)
	}
	if blobs, layers := inventory(t, s); blobs != 3 || layers != 1 {
		t.Errorf("left: %d blobs, %d layers", blobs, layers)
	}
}

func TestRemoveByDockersRules(t *testing.T) {
	const box = "4f0000000000000000000000000000000000000000000000000000000000abcd"
	short := func(img *Image) string { return img.ID.Encoded()[:12] }
	for name, c := range map[string]struct {
		names []string
		hold  string
		ref   string // "ID" is the image's id
		force bool
		want  string // lines; or the error after "!"
		left  string // the names afterwards, "none" for dangling, "gone"
	}{
		"only name":                  {[]string{"a"}, "", "a", false, "Untagged a:latest, Deleted ID, Deleted LAYER", "gone"},
		"one of two":                 {[]string{"a", "b:1"}, "", "a", false, "Untagged a:latest", "b:1"},
		"id, one name":               {[]string{"a"}, "", "ID", false, "Untagged a:latest, Deleted ID, Deleted LAYER", "gone"},
		"id, two names":              {[]string{"a", "b"}, "", "ID", false, "!conflict: unable to delete SHORT (must be forced) - image is referenced in multiple repositories", "a:latest b:latest"},
		"id, two names, force":       {[]string{"a", "b"}, "", "ID", true, "Untagged a:latest, Untagged b:latest, Deleted ID, Deleted LAYER", "gone"},
		"name, stopped user":         {[]string{"a"}, "container " + box, "a", false, `!conflict: unable to remove repository reference "a" (must force) - container 4f0000000000 is using its referenced image SHORT`, "a:latest"},
		"name, stopped user, force":  {[]string{"a"}, "container " + box, "a", true, "Untagged a:latest, Deleted ID", "gone"},
		"name of two, stopped user":  {[]string{"a", "b"}, "container " + box, "a", false, "Untagged a:latest", "b:latest"},
		"id, stopped user":           {[]string{"a"}, "container " + box, "ID", false, "!conflict: unable to delete SHORT (must be forced) - image is being used by stopped container 4f0000000000", "a:latest"},
		"id, stopped user, force":    {[]string{"a"}, "container " + box, "ID", true, "Untagged a:latest, Deleted ID", "gone"},
		"id, running user, force":    {[]string{"a"}, "running container " + box, "ID", true, "!conflict: unable to delete SHORT (cannot be forced) - image is being used by running container 4f0000000000", "a:latest"},
		"name, running user":         {[]string{"a"}, "running container " + box, "a", false, `!conflict: unable to remove repository reference "a" (must force) - container 4f0000000000 is using its referenced image SHORT`, "a:latest"},
		"name, running user, forced": {[]string{"a"}, "running container " + box, "a", true, "Untagged a:latest", "none"},
		"unknown":                    {[]string{"a"}, "", "x", true, "!No such image: x:latest", "a:latest"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			img := put(t, s, c.names, "x")
			if c.hold != "" {
				s.Hold(c.hold, img.ID)
			}
			ref := strings.ReplaceAll(c.ref, "ID", img.ID.String())
			removed, err := s.Remove(ref, c.force, true)
			var lines []string
			for _, r := range removed {
				if r.Untagged != "" {
					lines = append(lines, "Untagged "+r.Untagged)
				} else {
					lines = append(lines, "Deleted "+r.Deleted)
				}
			}
			got := strings.Join(lines, ", ")
			if err != nil {
				got = "!" + err.Error()
			}
			want := strings.NewReplacer("SHORT", short(img), "ID", img.ID.String(), "LAYER", img.Layers[0].DiffID.String()).Replace(c.want)
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			left := "gone"
			if list := s.List(); len(list) == 1 {
				left = strings.Join(list[0].Names, " ")
				if left == "" {
					left = "none"
				}
			}
			if left != c.left {
				t.Errorf("left %q, want %q", left, c.left)
			}
			blobs, layers := inventory(t, s)
			if want := c.left == "gone" && c.hold == ""; want != (blobs == 0 && layers == 0) {
				t.Errorf("left: %d blobs, %d layers", blobs, layers)
			}
			if c.left == "gone" && c.hold != "" {
				if _, err := s.Get(img.ID.String()); err != nil {
					t.Error("its container can't find the image:", err)
				}
				s.Release(c.hold)
				if blobs, layers := inventory(t, s); blobs+layers != 0 {
					t.Errorf("after the last hold: %d blobs, %d layers", blobs, layers)
				}
			}
		})
	}
}

func TestForcedRemovalSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	img := put(t, s, []string{"a"}, "x")
	s.Hold("container 1", img.ID)
	if _, err := s.Remove("a", true, true); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir)
	s.Hold("container 1", img.ID)
	if _, err := s.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(img.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lower(got); err != nil {
		t.Error(err)
	}
	if len(s.List()) != 0 {
		t.Error("removed image is listed")
	}
	// A pull of the same image brings it back.
	if _, err := s.PutManifest(got.Target, tag(t, "back")); err != nil {
		t.Fatal(err)
	}
	if len(s.List()) != 1 {
		t.Error("not back")
	}
}

func TestSharedLayersAndHoldsStay(t *testing.T) {
	s := open(t, t.TempDir())
	a := put(t, s, []string{"a"}, "base", "one")
	put(t, s, []string{"b"}, "base", "two")
	s.Hold("build step 1", a.Layers[1].DiffID)
	removed, err := s.Remove("a", false, true)
	if err != nil || len(removed) != 2 {
		t.Fatal(removed, err)
	}
	if _, err := s.Layers.Get(a.Layers[1].DiffID); err != nil {
		t.Error("held layer is gone")
	}
	if _, err := s.Blobs.Size(a.Layers[1].Blob); err != nil {
		t.Error("held layer's blob is gone")
	}
	if _, err := s.Layers.Get(a.Layers[0].DiffID); err != nil {
		t.Error("shared layer is gone")
	}
}

func TestSweepTakesOnlyGarbage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	img := put(t, s, []string{"a"}, "x")
	arrived := s.Arrive()
	held := commit(t, s, "held")
	loose := commit(t, s, "loose")
	if n, err := s.Sweep(context.Background()); err != nil || n != 0 {
		t.Fatalf("what is arriving was swept: %d %v", n, err)
	}
	s.Hold("cache", held.DiffID)
	arrived() // what the sweep spared and nobody took goes now
	arrived()
	if _, err := s.Layers.Get(loose.DiffID); err == nil {
		t.Error("garbage stays")
	}
	if _, err := s.Layers.Get(held.DiffID); err != nil {
		t.Error("held layer was swept")
	}
	if blobs, layers := inventory(t, s); blobs != 4 || layers != 2 {
		t.Errorf("left: %d blobs, %d layers", blobs, layers)
	}
	if _, err := s.Get(img.ID.String()); err != nil {
		t.Error(err)
	}
	s.Release("cache")
	if n, err := s.Sweep(context.Background()); err != nil || n == 0 {
		t.Errorf("what was let go is not freed at once: %d %v", n, err)
	}
	if blobs, layers := inventory(t, s); blobs != 3 || layers != 1 {
		t.Errorf("left at last: %d blobs, %d layers", blobs, layers)
	}
}

// A removal beside a pull of an image with the same layer: the pull found the layer, so it stays.
func TestRemovalSparesWhatAnArrivalFound(t *testing.T) {
	s := open(t, t.TempDir())
	img := put(t, s, []string{"a"}, "x")
	l := img.Layers[0]
	arrived := s.Arrive()
	if _, err := s.Layers.Claim(l.DiffID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Blobs.Claim(l.Blob); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove("a", true, true); err != nil {
		t.Fatal(err)
	}
	if err := s.Discard(l.Blob, l.DiffID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(config("b"), []layer.Layer{l}, tag(t, "b")); err != nil {
		t.Fatalf("the layer went under the arrival's hands: %v", err)
	}
	arrived()
	if _, err := s.Get("b"); err != nil {
		t.Error(err)
	}
	if blobs, layers := inventory(t, s); blobs != 3 || layers != 1 {
		t.Errorf("left: %d blobs, %d layers", blobs, layers)
	}
}

func TestDiskIsWhatDuSays(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, []string{"a"}, "base", "one")
	cached := commit(t, s, "two")
	s.Hold("build cache k", cached.DiffID)
	d, err := s.Disk()
	if err != nil {
		t.Fatal(err)
	}
	images, _ := files.Usage(filepath.Join(dir, "images"))
	layers, _ := files.Usage(filepath.Join(dir, "layers"))
	if own := int64(8 << 10); d.Total > images+layers || d.Total < images+layers-own { // the folder of layers itself
		t.Errorf("%d bytes, the folders have %d", d.Total, images+layers)
	}
	if len(d.Layers) != 3 || len(d.Cached) != 1 || d.Cached[cached.DiffID] == 0 {
		t.Errorf("%+v", d)
	}
}

func TestIndexKeepsThePlatformThatIsHere(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	img := put(t, s, nil, "x")
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("arm"), Size: 3, Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}}
	here := img.Manifest
	here.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	idx := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{absent, here}}
	idx.SchemaVersion = 2
	data, _ := json.MarshalIndent(idx, "", " ")
	d, err := s.Blobs.Put(data)
	if err != nil {
		t.Fatal(err)
	}
	target := ocispec.Descriptor{MediaType: idx.MediaType, Digest: d, Size: int64(len(data))}
	if _, err := s.PutManifest(target, tag(t, "multi:1")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir)
	got, err := s.Get("multi:1")
	if err != nil || got.ID != img.ID || got.Target.Digest != d || got.Manifest.Digest != img.Manifest.Digest {
		t.Fatalf("%+v %v", got, err)
	}
	if diff := cmp.Diff([]string{"multi@" + d.String()}, got.Digests); diff != "" {
		t.Error(diff)
	}
	if byDigest, err := s.Get("multi:ignored@" + d.String()); err != nil || byDigest.ID != img.ID {
		t.Error(err)
	}
	removed, err := s.Remove("multi:1", false, true)
	if err != nil || len(removed) != 4 {
		t.Fatal(removed, err)
	}
	if blobs, layers := inventory(t, s); blobs+layers != 0 {
		t.Errorf("left: %d blobs, %d layers", blobs, layers)
	}
}

func TestPutManifestWantsAllParts(t *testing.T) {
	s := open(t, t.TempDir())
	img := put(t, s, []string{"a"}, "x")
	if err := s.Blobs.Remove(img.Layers[0].Blob); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutManifest(img.Target, tag(t, "b")); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if _, err := s.PutManifest(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("no")}, nil); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

func TestMissingLayersAreUnpackedAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	img := put(t, s, []string{"a"}, "x")
	lost := put(t, s, []string{"lost"}, "y")
	s.Close()
	// What a power cut may leave: a torn layer, and a torn blob.
	if err := os.RemoveAll(s.Layers.Dir(img.Layers[0].DiffID)); err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{
		filepath.Join(dir, "layers/unsettled", img.Layers[0].DiffID.Encoded()),
		filepath.Join(dir, "images/ingest/unsettled/sha256-"+lost.ID.Encoded()),
	} {
		if err := os.WriteFile(mark, []byte("another boot"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.Blobs.Path(lost.ID), make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	got, err := s.Get("a")
	if err != nil {
		t.Fatal(err)
	}
	lower, err := s.Lower(got)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(lower[0], "file")); string(b) != "x" {
		t.Errorf("content %q", b)
	}
	if _, err := s.Get("lost"); !errdefs.IsNotFound(err) {
		t.Error("an image with a torn config is still there")
	}
}

func TestEvents(t *testing.T) {
	bus := &event.Bus{}
	s, err := Open(t.TempDir(), bus)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sub := bus.Subscribe()
	defer sub.Close()
	img := put(t, s, []string{"a"}, "x")
	if err := s.Tag("a", tag(t, "b")); err != nil {
		t.Fatal(err)
	}
	s.Remove("b", false, true)
	s.Remove("a", false, true)
	var got []string
	for range 5 {
		e := <-sub.C
		if e.Type != "image" || e.ID != img.ID.String() || e.Attributes["l-x"] != "1" {
			t.Errorf("%+v", e)
		}
		got = append(got, e.Action+" "+e.Attributes["name"])
	}
	want := []string{"tag a:latest", "tag b:latest", "untag " + img.ID.String(), "untag " + img.ID.String(), "delete " + img.ID.String()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPruneFilters(t *testing.T) {
	for name, c := range map[string]struct {
		filter string
		left   string
	}{
		"dangling only":  {``, "a b"},
		"all unused":     {`{"dangling":["false"]}`, "a"},
		"label":          {`{"dangling":["false"],"label":["l-2"]}`, "a none"},
		"not label":      {`{"dangling":["false"],"label!":["l-2"]}`, "a b"},
		"until, older":   {`{"dangling":["0"],"until":["1h"]}`, "a"},
		"until, younger": {`{"dangling":["false"],"until":["2001-01-01"]}`, "a b none"},
		"until, stamp":   {`{"dangling":["false"],"until":["1700000000.5"]}`, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			a := put(t, s, []string{"a"}, "1")
			put(t, s, []string{"b"}, "2")
			put(t, s, nil, "3")
			s.Hold("container 1", a.ID)
			f, err := filter.Parse(c.filter)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Prune(f); err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, img := range s.List() {
				n := "none"
				if len(img.Names) > 0 {
					n = strings.TrimSuffix(img.Names[0], ":latest")
				}
				left = append(left, n)
			}
			slices.Sort(left)
			if got := strings.Join(left, " "); got != c.left {
				t.Errorf("left %q, want %q", got, c.left)
			}
		})
	}
	s := open(t, t.TempDir())
	for _, f := range []filter.Args{{"x": {"1"}}, {"until": {"soon"}}, {"dangling": {"maybe"}}} {
		if _, _, err := s.Prune(f); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", f, err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	s := open(t, t.TempDir())
	done := make(chan error)
	for i := range 8 {
		go func() {
			var err error
			for n := range 5 {
				name := fmt.Sprintf("img%d", i)
				arrived := s.Arrive()
				l, e := s.CommitTar(context.Background(), bytes.NewReader(oneFile(t, "f", fmt.Sprint(n))))
				if e == nil {
					_, e = s.Put(config(name), []layer.Layer{l}, tag(t, name))
				}
				if e == nil {
					_, e = s.Get(name)
				}
				arrived()
				if e == nil && n%2 == 0 {
					_, e = s.Sweep(context.Background())
				}
				if e != nil {
					err = e
				}
			}
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
