package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/image"
	"tare/internal/image/layer"
)

var ctx = context.Background()

func open(t testing.TB) *image.Store {
	t.Helper()
	s, err := image.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func tagOf(t testing.TB, name string) reference.NamedTagged {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return reference.TagNameOnly(n).(reference.NamedTagged)
}

type entry struct {
	name, body, link string
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: 0o644, Size: int64(len(e.body))}
		if e.link != "" {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, e.link, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.body)
	}
	w.Close()
	return b.Bytes()
}

func put(t testing.TB, s *image.Store, names []string, bodies ...string) *image.Image {
	t.Helper()
	var ls []layer.Layer
	for i, b := range bodies {
		l, err := s.CommitTar(ctx, bytes.NewReader(tarOf(t, entry{name: fmt.Sprintf("file%d", i), body: b})))
		if err != nil {
			t.Fatal(err)
		}
		ls = append(ls, l)
	}
	c := &image.Config{}
	c.OS, c.Architecture = "linux", "amd64"
	c.Config.Cmd = []string{"/" + bodies[0]}
	var tags []reference.NamedTagged
	for _, n := range names {
		tags = append(tags, tagOf(t, n))
	}
	img, err := s.Put(c, ls, tags...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func save(t testing.TB, s *image.Store, refs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Save(ctx, s, refs, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func empty(t testing.TB, s *image.Store) {
	t.Helper()
	s.Blobs.Walk(func(d digest.Digest, _ int64) error { t.Errorf("left behind: blob %s", d); return nil })
	s.Layers.Walk(func(l layer.Layer) error { t.Errorf("left behind: layer %s", l.DiffID); return nil })
	for _, img := range s.List() {
		t.Errorf("left behind: image %s", img.ID)
	}
}

func content(t testing.TB, s *image.Store, img *image.Image, name string) string {
	t.Helper()
	dirs, err := s.Lower(img)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if b, err := os.ReadFile(filepath.Join(d, name)); err == nil {
			return string(b)
		}
	}
	return ""
}

func TestSaveAndLoadKeepDigests(t *testing.T) {
	s := open(t)
	a := put(t, s, []string{"a", "a:2", "reg.example/b:1"}, "base", "one")
	b := put(t, s, []string{"c"}, "base", "two")
	data := save(t, s, "a", "c", b.ID.String())
	if again := save(t, s, "a", "c", b.ID.String()); !bytes.Equal(data, again) {
		t.Error("the same images gave other bytes")
	}
	var gz, zs bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(data)
	w.Close()
	z, _ := zstd.NewWriter(&zs)
	z.Write(data)
	z.Close()
	for form, data := range map[string][]byte{"plain": data, "gzip": gz.Bytes(), "zstd": zs.Bytes()} {
		to := open(t)
		names, err := Load(ctx, to, struct{ io.Reader }{bytes.NewReader(data)}, nil)
		if err != nil {
			t.Fatal(form, err)
		}
		if diff := cmp.Diff([]string{"a:2", "a:latest", "c:latest"}, slices.Sorted(slices.Values(names))); diff != "" {
			t.Error(form, diff)
		}
		for _, want := range []*image.Image{a, b} {
			got, err := to.Get(want.ID.String())
			if err != nil {
				t.Fatal(form, err)
			}
			if got.Target.Digest != want.Target.Digest || len(got.Names) == 0 {
				t.Errorf("%s: %+v", form, got)
			}
		}
		if got := content(t, to, b, "file1"); got != "two" {
			t.Errorf("%s: content %q", form, got)
		}
	}
	if data := save(t, s, a.ID.Encoded()[:12]); bytes.Contains(data, []byte(`"a:latest"`)) {
		t.Error("an id was saved with names")
	}
	if err := Save(ctx, s, []string{"a", "nope"}, io.Discard); !errdefs.IsNotFound(err) || err.Error() != "No such image: nope:latest" {
		t.Error(err)
	}
}

// legacy is an archive as Docker 20.10 writes it: a layer that occurs twice is a symlink; here the parts come in the worst order.
func legacy(t testing.TB, compress bool) ([]byte, digest.Digest) {
	t.Helper()
	one, two := tarOf(t, entry{name: "f", body: "1"}), tarOf(t, entry{name: "f", body: "2"})
	ids := []digest.Digest{digest.FromBytes(one), digest.FromBytes(two), digest.FromBytes(one)}
	config, err := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "unknown": 1,
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	if err != nil {
		t.Fatal(err)
	}
	pack := func(b []byte) string {
		if !compress {
			return string(b)
		}
		var gz bytes.Buffer
		w := gzip.NewWriter(&gz)
		w.Write(b)
		w.Close()
		return gz.String()
	}
	id := digest.FromBytes(config)
	manifest := fmt.Sprintf(`[{"Config":"%s.json","RepoTags":["old:1","old:2"],"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]}]`, id.Encoded())
	return tarOf(t,
		entry{name: "c/layer.tar", link: "../a/layer.tar"},
		entry{name: "a/layer.tar", body: pack(one)},
		entry{name: "a/VERSION", body: "1.0"},
		entry{name: "b/layer.tar", body: pack(two)},
		entry{name: id.Encoded() + ".json", body: string(config)},
		entry{name: "repositories", body: "{}"},
		entry{name: "manifest.json", body: manifest},
	), id
}

func TestLoadOldDockerArchive(t *testing.T) {
	for _, compress := range []bool{false, true} {
		s := open(t)
		data, id := legacy(t, compress)
		names, err := Load(ctx, s, bytes.NewReader(data), nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"old:1", "old:2"}, names); diff != "" {
			t.Error(diff)
		}
		img, err := s.Get("old:2")
		if err != nil || img.ID != id || len(img.Layers) != 3 {
			t.Fatal(img, err)
		}
		if got := content(t, s, img, "f"); got != "1" {
			t.Errorf("content %q", got)
		}
	}
}

func TestBadArchivesLeaveNothing(t *testing.T) {
	good := open(t)
	put(t, good, []string{"a"}, "base", "one")
	data := save(t, good, "a")
	old, _ := legacy(t, false)
	one := string(tarOf(t, entry{name: "f", body: "1"}))
	evil := string(tarOf(t, entry{name: "../../x", body: "1"}))
	flip := bytes.Clone(data)
	flip[len(flip)-3000] ^= 1
	config := func(tars ...string) string {
		var ids []string
		for _, b := range tars {
			ids = append(ids, `"`+digest.FromString(b).String()+`"`)
		}
		return `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[` + strings.Join(ids, ",") + `]}}`
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":            {nil, "empty"},
		"garbage":          {bytes.Repeat([]byte("garbage "), 500), "broken archive"},
		"no image":         {tarOf(t, entry{name: "x", body: "y"}), "no image archive"},
		"truncated":        {data[:len(data)-4000], ""},
		"flipped bit":      {flip, ""},
		"old, truncated":   {old[:3000], ""},
		"broken gzip":      {append([]byte{0x1f, 0x8b, 8}, make([]byte, 100)...), "gzip"},
		"bad manifest":     {tarOf(t, entry{name: "manifest.json", body: "{"}), "cannot read manifest.json"},
		"bad index":        {tarOf(t, entry{name: "index.json", body: "["}), "cannot read index.json"},
		"missing config":   {tarOf(t, entry{name: "manifest.json", body: `[{"Config":"x.json"}]`}), `names config "x.json"`},
		"missing layer":    {tarOf(t, entry{name: "c.json", body: config(one)}, entry{name: "manifest.json", body: `[{"Config":"c.json","Layers":["l.tar"]}]`}), `names layer "l.tar"`},
		"wrong layer":      {tarOf(t, entry{name: "c.json", body: config(evil)}, entry{name: "l.tar", body: one}, entry{name: "manifest.json", body: `[{"Config":"c.json","Layers":["l.tar"]}]`}), "has diffID"},
		"evil layer":       {tarOf(t, entry{name: "c.json", body: config(evil)}, entry{name: "l.tar", body: evil}, entry{name: "manifest.json", body: `[{"Config":"c.json","Layers":["l.tar"]}]`}), "leads out of the root"},
		"too few layers":   {tarOf(t, entry{name: "c.json", body: config(one, one)}, entry{name: "l.tar", body: one}, entry{name: "manifest.json", body: `[{"Config":"c.json","Layers":["l.tar"]}]`}), "2 layers, manifest.json 1"},
		"link loop":        {tarOf(t, entry{name: "a", link: "b"}, entry{name: "b", link: "a"}, entry{name: "manifest.json", body: `[{"Config":"a"}]`}), "names config"},
		"link out":         {tarOf(t, entry{name: "a", link: "/etc/passwd"}, entry{name: "manifest.json", body: `[{"Config":"a"}]`}), "names config"},
		"path out":         {tarOf(t, entry{name: "manifest.json", body: `[{"Config":"../../etc/passwd"}]`}), "names config"},
		"bad name":         {tarOf(t, entry{name: "c.json", body: config(one)}, entry{name: "l.tar", body: one}, entry{name: "manifest.json", body: `[{"Config":"c.json","RepoTags":["UPPER:1"],"Layers":["l.tar"]}]`}), "invalid image name"},
		"second is broken": {tarOf(t, entry{name: "c.json", body: config(one)}, entry{name: "l.tar", body: one}, entry{name: "manifest.json", body: `[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l.tar"]},{"Config":"d.json"}]`}), "names config"},
		"blob, bad digest": {tarOf(t, entry{name: "blobs/sha256/../x", body: "y"}), "invalid digest"},
		"blob, short name": {tarOf(t, entry{name: "blobs/sha256/12", body: "y"}), "invalid digest"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			_, err := Load(ctx, s, bytes.NewReader(c.data), nil)
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want Invalid with %q", err, c.want)
			}
			empty(t, s)
		})
	}
}

func TestFailedLoadKeepsWhatWasThere(t *testing.T) {
	s := open(t)
	img := put(t, s, []string{"a"}, "base", "one")
	data := save(t, s, "a")
	if _, err := Load(ctx, s, bytes.NewReader(data[:len(data)-4000]), nil); err == nil {
		t.Fatal("no error")
	}
	if got := content(t, s, img, "file1"); got != "one" {
		t.Errorf("content %q", got)
	}
	if _, err := Load(ctx, s, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
}

func TestImport(t *testing.T) {
	s := open(t)
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(tarOf(t, entry{name: "etc/motd", body: "hi"}))
	w.Close()
	img, err := Import(ctx, s, &gz, nil, tagOf(t, "base:1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, s, img, "etc/motd"); got != "hi" || img.Config.OS != "linux" || img.Names[0] != "base:1" || img.Created.IsZero() {
		t.Errorf("%+v", img)
	}
	s = open(t)
	for _, bad := range [][]byte{tarOf(t, entry{name: "../x", body: "1"}), []byte(strings.Repeat("garbage", 200))} {
		if _, err := Import(ctx, s, bytes.NewReader(bad), nil, nil, nil); !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
	}
	empty(t, s)
}

// TestSkopeo exchanges archives and the layout itself with skopeo.
func TestSkopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Fatal("this test needs skopeo: test/deps.sh installs it")
	}
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(skopeo, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	root := t.TempDir()
	s, err := image.Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	img := put(t, s, []string{"web:1"}, "base", "one")
	if out := run("inspect", "oci:"+root+"/images:docker.io/library/web:1"); !strings.Contains(out, img.Target.Digest.String()) {
		t.Error(out)
	}
	file := filepath.Join(dir, "saved.tar")
	if err := os.WriteFile(file, save(t, s, "web:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"docker-archive to oci-archive":    {"docker-archive:" + file, "oci-archive:" + dir + "/1.tar:web:1"},
		"docker-archive to docker-archive": {"docker-archive:" + file + ":web:1", "docker-archive:" + dir + "/2.tar:web:1"},
		"oci-archive to oci-archive":       {"oci-archive:" + file, "oci-archive:" + dir + "/3.tar:web:1"},
		"layout to docker-archive":         {"oci:" + root + "/images:docker.io/library/web:1", "docker-archive:" + dir + "/4.tar:web:1"},
	} {
		t.Run(name, func(t *testing.T) {
			run("copy", "--insecure-policy", args[0], args[1])
			to := open(t)
			back, err := os.Open(strings.TrimSuffix(strings.SplitN(args[1], ":", 2)[1], ":web:1"))
			if err != nil {
				t.Fatal(err)
			}
			defer back.Close()
			names, err := Load(ctx, to, back, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"web:1"}, names); diff != "" {
				t.Error(diff)
			}
			got, err := to.Get("web:1")
			if err != nil {
				t.Fatal(err)
			}
			if got := content(t, to, got, "file1"); got != "one" {
				t.Errorf("content %q", got)
			}
		})
	}
}

func TestFullDiskLeavesNothing(t *testing.T) {
	from := open(t)
	noise := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	put(t, from, []string{"big"}, "small", string(noise))
	data := save(t, from, "big")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=5m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	s, err := image.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, err := Load(ctx, s, bytes.NewReader(data), nil); !errors.Is(err, unix.ENOSPC) {
		t.Error("load:", err)
	}
	empty(t, s)
	tarball := tarOf(t, entry{name: "f", body: string(noise)})
	if _, err := Import(ctx, s, bytes.NewReader(tarball), nil, nil, nil); !errors.Is(err, unix.ENOSPC) {
		t.Error("import:", err)
	}
	empty(t, s)
	if left, _ := filepath.Glob(dir + "/*/.tmp-*"); len(left) > 0 {
		t.Error(left)
	}
	if left, _ := filepath.Glob(dir + "/images/ingest/*"); len(left) != 1 {
		t.Error(left)
	}
	if _, err := Import(ctx, s, bytes.NewReader(tarOf(t, entry{name: "f", body: "1"})), nil, nil, nil); err != nil {
		t.Error("a small image no longer fits:", err)
	}
}

// TestLoadUncompressedLayout is what `docker save` of Docker 25 and newer writes, and what is left of it without index.json.
func TestLoadUncompressedLayout(t *testing.T) {
	one := string(tarOf(t, entry{name: "f", body: "1"}))
	d := func(s string) digest.Digest { return digest.FromString(s) }
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, d(one))
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		d(config), len(config), d(one), len(one))
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"annotations":{"io.containerd.image.name":"docker.io/library/new:1","org.opencontainers.image.ref.name":"1"}}]}`, d(manifest), len(manifest))
	items := fmt.Sprintf(`[{"Config":%q,"RepoTags":["new:1"],"Layers":[%q]}]`, blobName(d(config)), blobName(d(one)))
	blobs := []entry{{name: blobName(d(one)), body: one}, {name: blobName(d(config)), body: config}, {name: blobName(d(manifest)), body: manifest}}
	for name, entries := range map[string][]entry{
		"both":          append(slices.Clone(blobs), entry{name: "index.json", body: index}, entry{name: "manifest.json", body: items}),
		"manifest only": append(slices.Clone(blobs), entry{name: "manifest.json", body: items}),
		"index only":    append(slices.Clone(blobs), entry{name: "index.json", body: index}),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			names, err := Load(ctx, s, bytes.NewReader(tarOf(t, entries...)), nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"new:1"}, names); diff != "" {
				t.Error(diff)
			}
			img, err := s.Get("new:1")
			if err != nil || img.ID != d(config) {
				t.Fatal(img, err)
			}
			if name != "manifest only" && img.Target.Digest != d(manifest) {
				t.Error("the manifest lost its digest")
			}
			n := 0
			s.Blobs.Walk(func(digest.Digest, int64) error { n++; return nil })
			if n != 3 {
				t.Errorf("%d blobs", n)
			}
		})
	}
}

// FuzzLoad loads what is no archive, or nearly one: an error, and nothing left.
func FuzzLoad(f *testing.F) {
	s := open(f)
	put(f, s, []string{"a"}, "base", "one")
	f.Add(save(f, s, "a"))
	old, _ := legacy(f, false)
	f.Add(old)
	to := open(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		names, err := Load(t.Context(), to, bytes.NewReader(data), nil)
		if err != nil && len(names) > 0 {
			t.Error("names of a failed load")
		}
		for _, img := range to.List() {
			if _, err := to.Remove(img.ID.String(), true, false); err != nil {
				t.Error(err)
			}
		}
		empty(t, to)
	})
}
