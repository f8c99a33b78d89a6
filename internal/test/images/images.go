// Package images makes container images for tests and benches: deterministic,
// of any number of layers, files and bytes, as an OCI layout on disk or in a registry.
//
//	made, err := images.Generate(images.Options{Layers: 8, FilesPerLayer: 1875, FileSize: 33000})
//	made.WriteLayout(dir, "latest")       // skopeo copy oci:dir:latest …
//	made.Push("http://127.0.0.1:5000", "bench", "latest")
//
// The same options give the same bytes and digests.
package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options says what to make; zero values have the default in brackets.
type Options struct {
	Layers        int    // [1]
	FilesPerLayer int    // [1]
	FileSize      int    // mean, in bytes [1024]; the sizes of a layer vary from half to three halves of it
	Ratio         int    // how well the content compresses, about Ratio:1 [3]
	Compression   string // "gzip", "zstd", "none" ["gzip"]
	Docker        bool   // Docker's media types instead of the OCI's
	Seed          uint64 // another seed, another image
	Architecture  string // [this machine's]
	Variant       string
	Cmd           []string
	Files         map[string][]byte // more files, in a last layer of their own; mode 0755
}

// Image is a made image.
type Image struct {
	Manifest ocispec.Descriptor
	Config   ocispec.Descriptor
	Layers   []ocispec.Descriptor
	DiffIDs  []digest.Digest
	Blobs    map[digest.Digest][]byte // config, layers and the manifest itself
	Unpacked int64                    // bytes of file content
}

// Generate makes an image in memory.
func Generate(o Options) (*Image, error) {
	o.Layers, o.FilesPerLayer = max(o.Layers, 1), max(o.FilesPerLayer, 1)
	if o.FileSize == 0 {
		o.FileSize = 1024
	}
	if o.Ratio == 0 {
		o.Ratio = 3
	}
	if o.Architecture == "" {
		o.Architecture = runtime.GOARCH
	}
	img := &Image{Blobs: map[digest.Digest][]byte{}}
	for i := range o.Layers {
		files, size := o.layer(i)
		img.Unpacked += size
		if err := img.addLayer(o, files); err != nil {
			return nil, err
		}
	}
	if o.Files != nil {
		var files []file
		for _, name := range sortedKeys(o.Files) {
			files = append(files, file{name, o.Files[name], 0o755})
		}
		if err := img.addLayer(o, files); err != nil {
			return nil, err
		}
	}
	return img, img.finish(o)
}

type file struct {
	name string
	data []byte
	mode int64
}

// layer makes the files of the i-th layer, in folders of a hundred.
func (o Options) layer(i int) ([]file, int64) {
	rng := rand.New(rand.NewPCG(o.Seed, uint64(i)+1))
	var files []file
	var total int64
	for n := range o.FilesPerLayer {
		size := o.FileSize/2 + rng.IntN(o.FileSize+1)
		data := make([]byte, size)
		fill(rng, data, o.Ratio)
		total += int64(size)
		files = append(files, file{fmt.Sprintf("data/layer%02d/dir%03d/file%05d.bin", i, n/100, n), data, 0o644})
	}
	return files, total
}

// fill writes runs of words, of which one in ratio is new: gzip finds the rest again.
func fill(rng *rand.Rand, data []byte, ratio int) {
	const word = 24
	for at := 0; at < len(data); at += word {
		end := min(at+word, len(data))
		if at >= 4*word && rng.IntN(ratio*5/4) != 0 {
			from := at - word*(1+rng.IntN(min(at/word, 600)))
			copy(data[at:end], data[from:from+end-at])
			continue
		}
		for i := at; i < end; i += 8 {
			v := rng.Uint64()
			for j := i; j < min(i+8, end); j++ {
				data[j] = byte(v)
				v >>= 8
			}
		}
	}
}

func sortedKeys(m map[string][]byte) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	for i := range keys {
		for j := i; j > 0 && keys[j] < keys[j-1]; j-- {
			keys[j], keys[j-1] = keys[j-1], keys[j]
		}
	}
	return keys
}

var epoch = time.Unix(1_700_000_000, 0).UTC()

func (img *Image) addLayer(o Options, files []file) error {
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	made := map[string]bool{}
	for _, f := range files {
		for i, c := range f.name {
			if dir := f.name[:i+1]; c == '/' && !made[dir] {
				made[dir] = true
				if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: epoch}); err != nil {
					return err
				}
			}
		}
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: epoch}); err != nil {
			return err
		}
		if _, err := tw.Write(f.data); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return img.AddTar(raw.Bytes(), o.Compression, o.Docker)
}

// AddTar appends a layer made of any tar; call it before the manifest is made (see Assemble).
func (img *Image) AddTar(raw []byte, compression string, docker bool) error {
	var out bytes.Buffer
	mediaType := ocispec.MediaTypeImageLayerGzip
	switch compression {
	case "", "gzip":
		z, err := gzip.NewWriterLevel(&out, 6)
		if err != nil {
			return err
		}
		z.Write(raw)
		if err := z.Close(); err != nil {
			return err
		}
		if docker {
			mediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
		}
	case "zstd":
		z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		z.Write(raw)
		if err := z.Close(); err != nil {
			return err
		}
		mediaType = ocispec.MediaTypeImageLayerZstd
	case "none":
		out.Write(raw)
		mediaType = ocispec.MediaTypeImageLayer
		if docker {
			mediaType = "application/vnd.docker.image.rootfs.diff.tar"
		}
	default:
		return fmt.Errorf("unknown compression %q", compression)
	}
	img.DiffIDs = append(img.DiffIDs, digest.FromBytes(raw))
	img.Layers = append(img.Layers, img.add(mediaType, out.Bytes()))
	return nil
}

func (img *Image) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	img.Blobs[d.Digest] = data
	return d
}

// Assemble makes an image of given tars, which may be hostile ones.
func Assemble(o Options, tars ...[]byte) (*Image, error) {
	if o.Architecture == "" {
		o.Architecture = runtime.GOARCH
	}
	img := &Image{Blobs: map[digest.Digest][]byte{}}
	for _, t := range tars {
		if err := img.AddTar(t, o.Compression, o.Docker); err != nil {
			return nil, err
		}
	}
	return img, img.finish(o)
}

func (img *Image) finish(o Options) error {
	created := epoch
	config := ocispec.Image{
		Created:  &created,
		Platform: ocispec.Platform{OS: "linux", Architecture: o.Architecture, Variant: o.Variant},
		Config:   ocispec.ImageConfig{Cmd: o.Cmd, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: img.DiffIDs},
	}
	for i := range img.DiffIDs {
		config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: fmt.Sprintf("generated layer %d", i)})
	}
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	configType, manifestType := ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageManifest
	if o.Docker {
		configType, manifestType = "application/vnd.docker.container.image.v1+json", "application/vnd.docker.distribution.manifest.v2+json"
	}
	img.Config = img.add(configType, data)
	data, err = json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType, Config: img.Config, Layers: img.Layers})
	if err != nil {
		return err
	}
	img.Manifest = img.add(manifestType, data)
	img.Manifest.Platform = &config.Platform
	return nil
}

// Index makes an index of images; extra entries (attestations, …) come last.
func Index(imgs []*Image, extra ...ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, i := range imgs {
		index.Manifests = append(index.Manifests, i.Manifest)
	}
	index.Manifests = append(index.Manifests, extra...)
	data, err := json.Marshal(index)
	return ocispec.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data, err
}

// WriteLayout writes the image into an OCI layout, made if it is missing, under a tag.
func (img *Image) WriteLayout(dir, tag string) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	for d, data := range img.Blobs {
		if err := os.WriteFile(filepath.Join(blobs, d.Encoded()), data, 0o644); err != nil {
			return err
		}
	}
	var index ocispec.Index
	if data, err := os.ReadFile(filepath.Join(dir, "index.json")); err == nil {
		if err := json.Unmarshal(data, &index); err != nil {
			return err
		}
	}
	index.SchemaVersion, index.MediaType = 2, ocispec.MediaTypeImageIndex
	entry := img.Manifest
	entry.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	index.Manifests = append(index.Manifests, entry)
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), data, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

// Push sends the image to a registry without authentication; base is "http://host:port". It uses
// nothing of Tare, so that it may test it.
func (img *Image) Push(base, repository, tag string) error {
	for d, data := range img.Blobs {
		if d == img.Manifest.Digest {
			continue
		}
		if err := PushBlob(base, repository, data); err != nil {
			return err
		}
	}
	return PushManifest(base, repository, tag, img.Manifest.MediaType, img.Blobs[img.Manifest.Digest])
}

// PushBlob uploads one blob, in one piece.
func PushBlob(base, repository string, data []byte) error {
	rs, err := http.Post(base+"/v2/"+repository+"/blobs/uploads/", "application/octet-stream", nil)
	if err != nil {
		return err
	}
	rs.Body.Close()
	if rs.StatusCode != http.StatusAccepted {
		return fmt.Errorf("start of upload to %s: %s", repository, rs.Status)
	}
	u, err := rs.Request.URL.Parse(rs.Header.Get("Location"))
	if err != nil {
		return err
	}
	q := u.Query()
	q.Set("digest", digest.FromBytes(data).String())
	u.RawQuery = q.Encode()
	return put(u, "application/octet-stream", data)
}

// PushManifest stores a manifest or index under a tag or digest.
func PushManifest(base, repository, reference, mediaType string, data []byte) error {
	u, err := url.Parse(base + "/v2/" + repository + "/manifests/" + reference)
	if err != nil {
		return err
	}
	return put(u, mediaType, data)
}

func put(u *url.URL, mediaType string, data []byte) error {
	rq, err := http.NewRequest(http.MethodPut, u.String(), bytes.NewReader(data))
	if err != nil {
		return err
	}
	rq.Header.Set("Content-Type", mediaType)
	rs, err := http.DefaultClient.Do(rq)
	if err != nil {
		return err
	}
	defer rs.Body.Close()
	if rs.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(io.LimitReader(rs.Body, 4096))
		return fmt.Errorf("PUT %s: %s: %s", u.Path, rs.Status, strings.TrimSpace(string(text)))
	}
	return nil
}
