package transfer

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/image"
	"tare/internal/test/images"
)

// hostile is a registry that serves what it is given, whatever it is.
type hostile struct {
	manifests map[string][]byte // by tag or digest
	types     map[string]string
	blobs     map[string][]byte
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i := strings.LastIndexByte(r.URL.Path, '/')
	name := r.URL.Path[i+1:]
	switch {
	case r.URL.Path == "/v2/":
	case strings.Contains(r.URL.Path, "/manifests/") && h.manifests[name] != nil:
		w.Header().Set("Content-Type", h.types[name])
		w.Write(h.manifests[name])
	case strings.Contains(r.URL.Path, "/blobs/") && h.blobs[name] != nil:
		w.Write(h.blobs[name])
	default:
		w.WriteHeader(404)
	}
}

func (h *hostile) put(tag, mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	for _, name := range []string{tag, d.String()} {
		h.manifests[name], h.types[name] = data, mediaType
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// TestHostileManifests: lies, loops and giants are refused in bounded memory, with a sentence, and leave nothing.
func TestHostileManifests(t *testing.T) {
	made, err := images.Generate(images.Options{Layers: 2})
	if err != nil {
		t.Fatal(err)
	}
	var good ocispec.Manifest
	json.Unmarshal(made.Blobs[made.Manifest.Digest], &good)
	encode := func(v any) []byte { data, _ := json.Marshal(v); return data }
	change := func(f func(m *ocispec.Manifest)) func(h *hostile) {
		return func(h *hostile) {
			m := good
			m.Layers = append([]ocispec.Descriptor(nil), good.Layers...)
			f(&m)
			h.put("t", ocispec.MediaTypeImageManifest, encode(m))
		}
	}
	config := func(f func(c map[string]any) []byte) func(h *hostile) {
		return func(h *hostile) {
			var c map[string]any
			json.Unmarshal(made.Blobs[made.Config.Digest], &c)
			data := f(c)
			m := good
			m.Config = ocispec.Descriptor{MediaType: good.Config.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
			h.blobs[m.Config.Digest.String()] = data
			h.put("t", ocispec.MediaTypeImageManifest, encode(m))
		}
	}
	for what, c := range map[string]struct {
		serve func(h *hostile)
		want  string
	}{
		"a layer that is longer than said":  {change(func(m *ocispec.Manifest) { m.Layers[0].Size-- }), "its manifest says"},
		"a layer that is shorter than said": {change(func(m *ocispec.Manifest) { m.Layers[0].Size++ }), "its manifest says"},
		"a negative size":                   {change(func(m *ocispec.Manifest) { m.Layers[0].Size = -1 }), "says that"},
		"a digest that leads out":           {change(func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../../../etc/passwd" }), "invalid digest"},
		"another digest": {change(func(m *ocispec.Manifest) {
			m.Layers[0].Digest = m.Layers[1].Digest
			m.Layers[0].Size = m.Layers[1].Size
		}), "diffID"},
		"a config that is a layer": {change(func(m *ocispec.Manifest) { m.Config = m.Layers[0]; m.Config.MediaType = good.Config.MediaType }), "config"},
		"a giant config":           {change(func(m *ocispec.Manifest) { m.Config.Size = 1 << 40 }), "more than"},
		"a thousand layers": {change(func(m *ocispec.Manifest) {
			for range 1000 {
				m.Layers = append(m.Layers, m.Layers[0])
			}
		}), "more than 500"},
		"a foreign layer": {change(func(m *ocispec.Manifest) { m.Layers[0].URLs = []string{"http://127.0.0.1:1/"} }), "foreign"},
		"empty objects": {func(h *hostile) {
			h.put("t", ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[`+strings.Repeat("{},", 2_000_000)+`{}]}`))
		}, "objects"},
		"a config of empty objects": {config(func(c map[string]any) []byte {
			return []byte(`{"os":"linux","history":[` + strings.Repeat("{},", 2_000_000) + `{}]}`)
		}), "objects"},
		"a config of deep folds": {config(func(c map[string]any) []byte {
			return []byte(`{"os":"linux","x":` + strings.Repeat("[", 4_000_000) + strings.Repeat("]", 4_000_000) + `}`)
		}), "config"},
		"diffIDs that are none": {config(func(c map[string]any) []byte {
			c["rootfs"] = map[string]any{"type": "layers", "diff_ids": []string{"sha256:x", "../x"}}
			return encode(c)
		}), "diffID"},
		"an index of itself": {func(h *hostile) {
			inner := h.put("x", ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`))
			inner.Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
			for range 20 { // what a loop looks like to who follows it
				data := encode(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{inner}})
				inner = h.put("t", ocispec.MediaTypeImageIndex, data)
				inner.Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
			}
		}, "another index"},
		"schema 1": {func(h *hostile) {
			h.put("t", "application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1,"name":"x","fsLayers":[]}`))
		}, "schema version 1"},
		"HTML": {func(h *hostile) { h.put("t", "text/html", []byte("<html>log in</html>")) }, "not JSON"},
	} {
		t.Run(what, func(t *testing.T) {
			h := &hostile{manifests: map[string][]byte{}, types: map[string]string{}, blobs: map[string][]byte{}}
			for d, b := range made.Blobs {
				h.blobs[d.String()] = b
			}
			c.serve(h)
			w := newWorld(t)
			srv := httptest.NewServer(h)
			defer srv.Close()
			w.host = strings.TrimPrefix(srv.URL, "http://")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := w.s.Pull(t.Context(), PullRequest{Ref: w.ref("x:t")}, nil)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), c.want) || errdefs.IsInternal(err) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 200<<20 {
				t.Errorf("%d bytes were used", used)
			}
			w.sound()
			if left := leftovers(w.root); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestReferrersThatLie say that they are about the image, are giants, or never come: the image comes, without them.
func TestReferrersThatLie(t *testing.T) {
	w := newWorld(t)
	made := w.push("x", "t", images.Options{})
	other := w.push("x", "other", images.Options{Seed: 5})
	about := artifact("a/b", &other.Manifest, []byte("x"))
	lie := w.putManifest("x", "", about, []byte("x"), []byte("{}"))
	w.reset(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "/referrers/") {
				h.ServeHTTP(rw, r)
				return
			}
			gone := lie
			gone.Digest = digest.FromString("gone")
			giant := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: made.Config.Digest, Size: 1 << 50}
			json.NewEncoder(rw).Encode(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{lie, gone, giant}})
		})
	})
	img, _ := w.pull("x:t")
	if a := (image.Attachments{Store: w.store}).Attached(img); len(a) != 0 {
		t.Errorf("%+v", a)
	}
}

func FuzzReference(f *testing.F) {
	for _, s := range []string{"nginx", "a/b:1", "127.0.0.1:5000/x@sha256:" + strings.Repeat("0", 64), "UPPER", "a//b", ":", "x:y:z", "[::1]:5/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := reference.ParseNormalizedNamed(s)
		if err != nil {
			return
		}
		again, err := reference.ParseNormalizedNamed(ref.String())
		if err != nil || again.String() != ref.String() {
			t.Errorf("%q is %q is %v", s, ref, again)
		}
		if strings.Contains(ref.Name(), "..") && strings.Contains(ref.Name(), "/../") {
			t.Errorf("%q leads out", ref)
		}
	})
}

func FuzzAttachment(f *testing.F) {
	f.Add([]byte(`{"config":{"mediaType":"a","digest":"sha256:x","size":1},"layers":[]}`))
	f.Add([]byte(`{"subject":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := parseAny(data, ocispec.Descriptor{Digest: digest.FromBytes(data)})
		if err == nil {
			doc.parts()
		}
	})
}
