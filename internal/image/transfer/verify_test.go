package transfer

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/image"
	"tare/internal/image/registry"
	"tare/internal/test/faulty"
	"tare/internal/test/images"
)

// TestVerifyFindsAndRepairs damages blobs and layers in every way, and has them mended from the registry.
func TestVerifyFindsAndRepairs(t *testing.T) {
	w := newWorld(t)
	w.push("x", "t", images.Options{Layers: 3, FilesPerLayer: 8})
	img, _ := w.pull("x:t")
	if v, found, err := w.s.Verify(t.Context(), VerifyRequest{}, nil); err != nil || len(found) != 0 || v.Blobs != 5 || v.Layers != 3 {
		t.Fatal(v, found, err)
	}
	blob := func(d digest.Digest) string { return w.store.Blobs.Path(d) }
	file := func(n int) string {
		var name string
		filepath.WalkDir(w.store.Layers.Dir(img.Layers[n].DiffID), func(p string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				name = p
			}
			return err
		})
		return name
	}
	flip := func(path string) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, _ := os.Stat(path)
		data[len(data)/2] ^= 1
		os.WriteFile(path, data, info.Mode())
		os.Chtimes(path, info.ModTime(), info.ModTime())
	}
	for what, c := range map[string]struct {
		damage func()
		kinds  string
	}{
		"a bit of a layer's blob": {func() { flip(blob(img.Layers[0].Blob)) }, "blob layer"},
		"a blob is gone":          {func() { os.Remove(blob(img.Layers[1].Blob)) }, "blob layer"},
		"a short config":          {func() { os.Truncate(blob(img.ID), 10) }, "blob"},
		"a bit of the manifest":   {func() { flip(blob(img.Manifest.Digest)) }, "blob"},
		"a bit of a file":         {func() { flip(file(0)) }, "layer"},
		"a file is gone":          {func() { os.Remove(file(1)) }, "layer"},
		"a file too many":         {func() { os.WriteFile(file(1)+"x", nil, 0o644) }, "layer"},
		"another mode":            {func() { os.Chmod(file(2), 0o4711) }, "layer"},
		"another owner":           {func() { os.Chown(file(2), 5, 5) }, "layer"},
	} {
		c.damage()
		kinds := func(rq VerifyRequest) (string, []Finding) {
			_, found, err := w.s.Verify(t.Context(), rq, nil)
			if err != nil {
				t.Fatal(what, err)
			}
			var ks []string
			for _, f := range found {
				ks = append(ks, f.Kind)
				if !slices.Contains(f.Images, img.Names[0]) {
					t.Errorf("%s: %+v", what, f)
				}
			}
			return strings.Join(ks, " "), found
		}
		if got, found := kinds(VerifyRequest{Images: []string{img.Names[0]}}); got != c.kinds {
			t.Errorf("%s: found %q: %+v", what, got, found)
		}
		if _, found := kinds(VerifyRequest{Repair: true}); len(found) > 0 && slices.ContainsFunc(found, func(f Finding) bool { return !f.Repaired }) {
			t.Errorf("%s: %+v", what, found)
		}
		if got, found := kinds(VerifyRequest{}); got != "" {
			t.Errorf("%s: after the repair: %+v", what, found)
		}
	}
	// What runs is not touched; what no registry has is told.
	w.store.Hold("running container 1", img.ID)
	flip(file(0))
	if _, found, _ := w.s.Verify(t.Context(), VerifyRequest{Repair: true}, nil); len(found) != 1 || found[0].Repaired || !strings.Contains(found[0].Note, "running container 1 uses it") {
		t.Errorf("%+v", found)
	}
	w.store.Release("running container 1")
	w.srv.Close()
	flip(blob(img.Layers[2].Blob))
	if _, found, _ := w.s.Verify(t.Context(), VerifyRequest{Repair: true}, nil); len(found) != 3 || found[0].Repaired {
		t.Errorf("%+v", found)
	}
}

// put stores a manifest and its blobs in the world's registry.
func (w *world) putManifest(repo, tag string, m ocispec.Manifest, blobs ...[]byte) ocispec.Descriptor {
	w.t.Helper()
	r := w.s.registry.Repository(w.ref(repo), nil, registry.Push)
	for _, b := range blobs {
		if err := r.Upload(w.t.Context(), ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}, bytes.NewReader(b), nil); err != nil {
			w.t.Fatal(err)
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if tag == "" {
		tag = d.Digest.String()
	}
	if err := r.PutManifest(w.t.Context(), tag, m.MediaType, data); err != nil {
		w.t.Fatal(err)
	}
	return d
}

func artifact(kind string, subject *ocispec.Descriptor, body []byte) ocispec.Manifest {
	return ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: kind,
		Config: ocispec.DescriptorEmptyJSON, Subject: subject,
		Layers: []ocispec.Descriptor{{MediaType: kind, Digest: digest.FromBytes(body), Size: int64(len(body))}}}
}

// TestWhatIsSaidAboutAnImage: attestations of the index and referrers come with a pull, survive a restart and a sweep, and go with a push, also to a
// registry that does not list referrers.
func TestWhatIsSaidAboutAnImage(t *testing.T) {
	w := newWorld(t)
	made := w.push("x", "plain", images.Options{Layers: 2})
	statement, signature := []byte(`{"predicateType":"sbom"}`), []byte("signed, me")
	att := w.putManifest("x", "", artifact("application/vnd.in-toto+json", nil, statement), statement, []byte("{}"))
	manifest := made.Manifest
	manifest.Platform = &ocispec.Platform{OS: "linux", Architecture: host().Architecture}
	att.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	att.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": manifest.Digest.String()}
	idx, _ := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{manifest, att}})
	if err := w.s.registry.Repository(w.ref("x"), nil, registry.Push).PutManifest(t.Context(), "t", ocispec.MediaTypeImageIndex, idx); err != nil {
		t.Fatal(err)
	}
	sig := w.putManifest("x", "", artifact("application/x.signature", &made.Manifest, signature), signature, []byte("{}"))

	img, _ := w.pull("x:t")
	check := func(when string) {
		t.Helper()
		img, err := w.store.Get(img.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range (image.Attachments{Store: w.store}).Attached(img) {
			got = append(got, a.Manifest.Digest.String())
			for _, b := range a.Blobs {
				if err := w.store.Blobs.Verify(b.Digest); err != nil {
					t.Error(when, err)
				}
			}
		}
		if want := []string{att.Digest.String(), sig.Digest.String()}; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	check("after the pull")
	w.store.Blobs.Close()
	w.store.Layers.Close()
	w.open()
	if _, err := w.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("after a restart and a sweep")
	for _, lists := range []bool{true, false} {
		other := newWorld(t)
		p := other.behind()
		if !lists {
			p.Set(faulty.Fault{Kind: faulty.Status, Code: 404, Path: "/referrers/"}, faulty.Fault{Kind: faulty.Silent, Method: "PUT", To: "OCI-Subject"})
		}
		to, _ := reference.ParseNormalizedNamed(other.host + "/y:t")
		if err := w.store.Tag(img.ID.String(), to.(reference.NamedTagged)); err != nil {
			t.Fatal(err)
		}
		if err := w.s.Push(t.Context(), PushRequest{Ref: to}, nil); err != nil {
			t.Fatal(err)
		}
		repo := w.s.registry.Repository(to, nil, registry.Pull)
		refs, err := repo.Referrers(t.Context(), made.Manifest.Digest)
		if err != nil || len(refs) != 1 || refs[0].Digest != sig.Digest || refs[0].ArtifactType != "application/x.signature" {
			t.Errorf("lists %v: %v %v", lists, refs, err)
		}
		if _, _, err := repo.Manifest(t.Context(), att.Digest.String()); err != nil {
			t.Error(err)
		}
		other.store.Blobs.Close()
	}
	// It goes with the image.
	if _, err := w.store.Remove(img.ID.String(), true, false); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(w.root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestRollback moves a tag by pulls, and back.
func TestRollback(t *testing.T) {
	w := newWorld(t)
	w.push("x", "t", images.Options{Seed: 1})
	one, _ := w.pull("x:t")
	w.push("x", "t", images.Options{Seed: 2})
	two, _ := w.pull("x:t")
	name := two.Names[0]
	log, err := (image.History{Store: w.store}).Log(name)
	if err != nil || len(log) != 2 || log[0].Image != two.ID || log[1].Image != one.ID {
		t.Fatal(log, err)
	}
	to, err := (image.History{Store: w.store}).Earlier(name, "")
	if err != nil || to.Image != one.ID {
		t.Fatal(to, err)
	}
	img, err := (image.History{Store: w.store}).Rollback(name, to)
	if err != nil || img.ID != one.ID {
		t.Fatal(err)
	}
	var now *image.Image
	if now, err = w.store.Get(name); err != nil || now.ID != one.ID {
		t.Error(err)
	}
	if to, err = (image.History{Store: w.store}).Earlier(name, two.ID.Encoded()[:12]); err != nil || to.Image != two.ID {
		t.Error(to, err)
	}
	if _, err := (image.History{Store: w.store}).Earlier(name, "feedface"); err == nil {
		t.Error("rolled back to nothing")
	}
}

// TestPushInAnotherForm: zstd layers, the same each time, pulled elsewhere with the same diffIDs; nothing of them stays here.
func TestPushInAnotherForm(t *testing.T) {
	w := newWorld(t)
	w.push("x", "t", images.Options{Layers: 3, FilesPerLayer: 30, FileSize: 300000})
	img, _ := w.pull("x:t")
	before := leftovers(w.root)
	var digests []string
	for _, to := range []string{"z:t", "y:t"} {
		ref := w.ref(to).(reference.NamedTagged)
		if err := w.store.Tag(img.ID.String(), ref); err != nil {
			t.Fatal(err)
		}
		if err := w.s.Push(t.Context(), PushRequest{Ref: ref, Compression: "zstd"}, nil); err != nil {
			t.Fatal(err)
		}
		data, d, err := w.s.registry.Repository(ref, nil, registry.Pull).Manifest(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.Digest.String())
		var m ocispec.Manifest
		json.Unmarshal(data, &m)
		for _, l := range m.Layers {
			if l.MediaType != ocispec.MediaTypeImageLayerZstd {
				t.Error(l.MediaType)
			}
		}
	}
	if digests[0] != digests[1] || digests[0] == img.Manifest.Digest.String() {
		t.Errorf("%v", digests)
	}
	if after := leftovers(w.root); !slices.Equal(before, after) {
		t.Errorf("%v, before %v", after, before)
	}
	other := newWorld(t)
	other.host = w.host
	got, _ := other.pull("z:t")
	if got.ID != img.ID {
		t.Errorf("%s, want %s", got.ID, img.ID)
	}
}
