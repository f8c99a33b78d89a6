package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// OddImage is one of a collection of images that have a little of everything.
type OddImage struct {
	Name      string
	Root      ocispec.Descriptor   // what a tag stands for
	Manifests []ocispec.Descriptor // children first, Root last
	Blobs     map[digest.Digest][]byte
	Docker    bool // has Docker's media types, which an OCI layout does not take
	Runs      bool // its process prints what it sees of /data
}

// entry is one header and content of a tar.
type entry struct {
	tar.Header
	content string
}

func fileOf(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: epoch, Size: int64(len(content))}, content}
}

func dirOf(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: epoch}, ""}
}

func tarOf(entries ...entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.PAXRecords != nil || !h.ModTime.Equal(h.ModTime.Truncate(time.Second)) {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(&h); err != nil {
			panic(fmt.Sprint(h.Name, ": ", err))
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			panic(fmt.Sprint(h.Name, ": ", err))
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func changed(e entry, f func(h *tar.Header)) entry {
	f(&e.Header)
	return e
}

// Odd makes thirty images: every media type, and contents of all kinds. tree is a static program that prints what it sees of
// the folders that it is given.
func Odd(tree []byte) ([]*OddImage, error) {
	base := tarOf(changed(fileOf("tree", string(tree)), func(h *tar.Header) { h.Mode = 0o755 }), dirOf("data/"), fileOf("data/base", "base\n"))
	lower := tarOf(dirOf("data/d/"), fileOf("data/d/one", "1"), fileOf("data/d/two", "2"), dirOf("data/d/sub/"), fileOf("data/d/sub/three", "3"), fileOf("data/gone", "x"), fileOf("data/kept", "y"))
	o := &odd{base: base}
	// Media types.
	o.add("oci-gzip", Options{}, lower)
	o.add("oci-zstd", Options{Compression: "zstd"}, lower)
	o.add("oci-plain", Options{Compression: "none"}, lower)
	o.add("docker-gzip", Options{Docker: true}, lower)
	o.add("docker-plain", Options{Docker: true, Compression: "none"}, lower)
	o.mixed("oci-mixed", lower)
	// Contents.
	o.add("whiteouts", Options{}, lower, tarOf(dirOf("data/"), fileOf("data/.wh.gone", ""), dirOf("data/d/"), fileOf("data/d/.wh.sub", "")))
	o.add("opaque", Options{}, lower, tarOf(dirOf("data/d/"), fileOf("data/d/.wh..wh..opq", ""), fileOf("data/d/new", "n")))
	o.add("file-becomes-folder", Options{}, lower, tarOf(dirOf("data/kept/"), fileOf("data/kept/in", "i")), tarOf(fileOf("data/d", "now a file")))
	link := func(name, to string, kind byte) entry {
		return entry{tar.Header{Typeflag: kind, Name: name, Linkname: to, Mode: 0o777, ModTime: epoch}, ""}
	}
	hard := func(name, to string) entry { // tar(1) writes the file's own mode
		return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o644, ModTime: epoch}, ""}
	}
	o.add("hard-links", Options{}, tarOf(fileOf("data/a", "linked"), hard("data/b", "data/a"), dirOf("data/s/"), hard("data/s/c", "data/b")))
	o.add("symbolic-links", Options{}, tarOf(link("data/abs", "/data/base", tar.TypeSymlink), link("data/loop", "loop", tar.TypeSymlink), link("data/up", "../../../../etc", tar.TypeSymlink), link("data/none", "no/such", tar.TypeSymlink)))
	o.add("devices", Options{}, tarOf(
		entry{tar.Header{Typeflag: tar.TypeFifo, Name: "data/fifo", Mode: 0o600, ModTime: epoch}, ""},
		entry{tar.Header{Typeflag: tar.TypeChar, Name: "data/null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: epoch}, ""}))
	o.add("capabilities", Options{}, tarOf(changed(fileOf("data/ping", "x"), func(h *tar.Header) {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	}), changed(fileOf("data/note", "x"), func(h *tar.Header) {
		h.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "one\x00two"}
	})))
	o.add("owners-and-modes", Options{}, tarOf(
		changed(fileOf("data/setuid", "x"), func(h *tar.Header) { h.Mode, h.Uid, h.Gid = 0o4755, 1000, 1001 }),
		changed(fileOf("data/nothing", "x"), func(h *tar.Header) { h.Mode = 0 }),
		changed(dirOf("data/sticky/"), func(h *tar.Header) { h.Mode = 0o1777 }),
		changed(fileOf("data/large-ids", "x"), func(h *tar.Header) { h.Uid, h.Gid = 3_000_000, 3_000_001 })))
	o.add("times", Options{}, tarOf(
		changed(fileOf("data/nanoseconds", "x"), func(h *tar.Header) { h.ModTime = time.Unix(1_600_000_000, 123456789) }),
		changed(fileOf("data/before-1970", "x"), func(h *tar.Header) { h.ModTime = time.Unix(-86400, 0); h.Format = tar.FormatPAX }),
		changed(fileOf("data/far", "x"), func(h *tar.Header) { h.ModTime = time.Unix(4_102_444_800, 0) })))
	o.add("names", Options{}, tarOf(fileOf("data/spa ce", "1"), fileOf("data/new\nline", "2"), fileOf("data/tüte-日本語-🎁", "3"), fileOf(`data/back\slash"quote`, "4"), fileOf("data/-rf", "5")))
	o.add("names-not-utf8", Options{}, tarOf(changed(fileOf("data/\xff\xfe-latin1-\xe9", "x"), func(h *tar.Header) { h.Format = tar.FormatGNU })))
	o.add("long-names", Options{}, tarOf(dirOf("data/"+strings.Repeat("d", 200)+"/"), fileOf("data/"+strings.Repeat("d", 200)+"/"+strings.Repeat("f", 255), "x"),
		changed(fileOf("data/"+strings.Repeat("g", 240), "gnu"), func(h *tar.Header) { h.Format = tar.FormatGNU })))
	o.add("no-parents", Options{}, tarOf(fileOf("data/x/y/z/deep", "1")))
	o.add("dots-and-slashes", Options{}, tarOf(dirOf("./data/dot/"), fileOf("./data/dot/file", "1"), fileOf("data//double", "2"), fileOf("/data/absolute", "3")))
	o.add("zeros", Options{}, tarOf(fileOf("data/zeros", strings.Repeat("\x00", 3<<20)), fileOf("data/empty", ""), dirOf("data/empty-folder/")))
	o.add("gone-and-back", Options{}, lower, tarOf(dirOf("data/"), fileOf("data/.wh.d", ""), fileOf("data/.wh.gone", "")), tarOf(dirOf("data/"), dirOf("data/d/"), fileOf("data/d/back", "b"), fileOf("data/gone", "back")))
	o.add("same-layer-twice", Options{}, lower, lower)
	o.add("empty-layer", Options{}, tarOf())
	var many []entry
	for i := range 500 {
		many = append(many, fileOf(fmt.Sprintf("data/many/%03d", i), fmt.Sprint(i)))
	}
	o.add("many-files", Options{Compression: "zstd"}, tarOf(many...))
	var layers [][]byte
	for i := range 40 {
		layers = append(layers, tarOf(fileOf(fmt.Sprintf("data/layer%02d", i), fmt.Sprint(i))))
	}
	o.add("forty-layers", Options{}, layers...)
	// Manifests.
	o.spaced("odd-json")
	o.index("index", false)
	o.index("docker-list", true)
	o.artifact("artifact")
	return o.all, o.err
}

type odd struct {
	base []byte
	all  []*OddImage
	err  error
}

func (o *odd) keep(name string, img *Image, docker, runs bool) *OddImage {
	made := &OddImage{Name: name, Root: img.Manifest, Manifests: []ocispec.Descriptor{img.Manifest}, Blobs: img.Blobs, Docker: docker, Runs: runs}
	made.Root.Platform = nil
	made.Manifests[0].Platform = nil
	o.all = append(o.all, made)
	return made
}

var treeCommand = []string{"/tree", "/data"}

func (o *odd) add(name string, opt Options, layers ...[]byte) {
	opt.Cmd = treeCommand
	img, err := Assemble(opt, append([][]byte{o.base}, layers...)...)
	if err != nil {
		o.err = err
		return
	}
	o.keep(name, img, opt.Docker, true)
}

// mixed has a layer of each compression.
func (o *odd) mixed(name string, extra []byte) {
	img := &Image{Blobs: map[digest.Digest][]byte{}}
	for i, compression := range []string{"gzip", "zstd", "none"} {
		raw := [][]byte{o.base, extra, tarOf(fileOf("data/last", "l"))}[i]
		if err := img.AddTar(raw, compression, false); err != nil {
			o.err = err
			return
		}
	}
	if err := img.finish(Options{Cmd: treeCommand, Architecture: runtime.GOARCH}); err != nil {
		o.err = err
		return
	}
	o.keep(name, img, false, true)
}

// spaced has a manifest and a config with fields nobody knows, in JSON that nobody would write.
func (o *odd) spaced(name string) {
	img, err := Assemble(Options{Cmd: treeCommand}, o.base)
	if err != nil {
		o.err = err
		return
	}
	config := bytes.Replace(img.Blobs[img.Config.Digest], []byte("{"), []byte("{\n\t\"x-unknown\" : [1e2, null, \"\\u00fc\"],  "), 1)
	img.Config = img.add(img.Config.MediaType, config)
	var m ocispec.Manifest
	if o.err = json.Unmarshal(img.Blobs[img.Manifest.Digest], &m); o.err != nil {
		return
	}
	delete(img.Blobs, img.Manifest.Digest)
	m.Config = img.Config
	m.Annotations = map[string]string{"org.example.ü": "a\"b\\c\n", "empty": ""}
	data, err := json.MarshalIndent(m, "  ", "      ")
	if err != nil {
		o.err = err
		return
	}
	data = append(bytes.Replace(data, []byte(`"schemaVersion"`), []byte(`"x-unknown": {"a": [{}]}, "schemaVersion"`), 1), "\n \n"...)
	img.Manifest = img.add(img.Manifest.MediaType, data)
	o.keep(name, img, false, true)
}

// index has an image for here and one for elsewhere.
func (o *odd) index(name string, docker bool) {
	made := &OddImage{Name: name, Blobs: map[digest.Digest][]byte{}, Docker: docker, Runs: true}
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	mediaType := ocispec.MediaTypeImageIndex
	if docker {
		mediaType = "application/vnd.docker.distribution.manifest.list.v2+json"
	}
	list := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType}
	for _, arch := range []string{other, runtime.GOARCH} {
		img, err := Assemble(Options{Cmd: treeCommand, Docker: docker, Architecture: arch}, o.base, tarOf(fileOf("data/arch", arch)))
		if err != nil {
			o.err = err
			return
		}
		for d, b := range img.Blobs {
			made.Blobs[d] = b
		}
		p := ocispec.Platform{OS: "linux", Architecture: arch}
		img.Manifest.Platform = &p
		list.Manifests = append(list.Manifests, img.Manifest)
		made.Manifests = append(made.Manifests, img.Manifest)
	}
	data, err := json.Marshal(list)
	if err != nil {
		o.err = err
		return
	}
	made.Root = ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	made.Blobs[made.Root.Digest] = data
	made.Manifests = append(made.Manifests, made.Root)
	o.all = append(o.all, made)
}

// artifact is no image: an empty config, a text.
func (o *odd) artifact(name string) {
	img := &Image{Blobs: map[digest.Digest][]byte{}}
	empty := img.add(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	text := img.add("text/plain", []byte("hello\n"))
	text.Annotations = map[string]string{ocispec.AnnotationTitle: "hello.txt"}
	data, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example.text", Config: empty, Layers: []ocispec.Descriptor{text}})
	if err != nil {
		o.err = err
		return
	}
	img.Manifest = img.add(ocispec.MediaTypeImageManifest, data)
	o.keep(name, img, false, false)
}

// Push sends the image to a registry without authentication, under a tag.
func (i *OddImage) Push(base, repository, tag string) error {
	manifests := map[digest.Digest]bool{}
	for _, m := range i.Manifests {
		manifests[m.Digest] = true
	}
	for d, data := range i.Blobs {
		if !manifests[d] {
			if err := PushBlob(base, repository, data); err != nil {
				return err
			}
		}
	}
	for _, m := range i.Manifests {
		ref := m.Digest.String()
		if m.Digest == i.Root.Digest {
			ref = tag
		}
		if err := PushManifest(base, repository, ref, m.MediaType, i.Blobs[m.Digest]); err != nil {
			return err
		}
	}
	return nil
}

// WriteLayout writes the image into an OCI layout of its own.
func (i *OddImage) WriteLayout(dir, tag string) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	for d, data := range i.Blobs {
		if err := os.WriteFile(filepath.Join(blobs, d.Encoded()), data, 0o644); err != nil {
			return err
		}
	}
	root := i.Root
	root.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{root}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}
