package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/base/progress"
	"tare/internal/image"
	"tare/internal/image/compress"
	"tare/internal/image/layer"
)

// Limits of what is kept in memory, in bytes.
const (
	maxSmall    = 8 << 20
	maxAllSmall = 64 << 20
)

// Load reads either form, compressed or not, and returns the loaded images' names (or ids where they have none), sorted as
// in the archive. On an error nothing new stays.
func Load(ctx context.Context, s *image.Store, r io.Reader, p progress.Sink) ([]string, error) {
	ld := &loading{
		ctx: ctx, s: s, progress: p, holder: "load " + ids.New(),
		small: map[string][]byte{}, links: map[string]string{}, layers: map[string]layer.Layer{},
		images: map[digest.Digest]*image.Image{},
	}
	arrived := s.Arrive()
	ld.ahead.ctx, ld.ahead.stop = context.WithCancel(ctx)
	ld.ahead.group.SetLimit(runtime.NumCPU())
	names, err := ld.run(r)
	if err != nil {
		ld.ahead.stop()
	}
	ld.used = append(ld.used, ld.ahead.end()...)
	if err != nil {
		ld.undo()
	}
	s.Release(ld.holder)
	arrived()
	// What was used is reached by names now; the rest is of no use to anybody.
	if derr := s.Discard(ld.used...); err == nil {
		err = derr
	}
	if err != nil {
		return nil, fmt.Errorf("cannot load images: %w", err)
	}
	return names, nil
}

type loading struct {
	ctx      context.Context
	s        *image.Store
	progress progress.Sink
	holder   string
	used     []digest.Digest // blobs and diffIDs that the archive has

	small  map[string][]byte              // by clean name
	sizes  int                            // of small
	links  map[string]string              // name → the name it stands for
	layers map[string]layer.Layer         // layer tars, by clean name
	images map[digest.Digest]*image.Image // that were made, by id
	fresh  []digest.Digest                // those that were not there before
	names  []naming                       // to be set when all images are there
	loaded []string
	ahead  unpacking
}

// unpacking makes layers of blobs while the archive goes on: what is compressed and no larger than any layer is one, most likely. Whoever
// needs the layer finds it there.
type unpacking struct {
	group errgroup.Group
	ctx   context.Context
	stop  context.CancelFunc

	mu     sync.Mutex // guards layers
	layers []digest.Digest
}

// begin unpacks the blob d, if it is compressed. That it can't be unpacked is told by who needs it.
func (u *unpacking) begin(s *image.Store, d digest.Digest) {
	u.group.Go(func() error {
		f, err := s.Blobs.Reader(d)
		if err != nil {
			return nil
		}
		defer f.Close()
		var head [6]byte
		if n, _ := io.ReadFull(f, head[:]); compress.Detect(head[:n]) == compress.None {
			return nil
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil
		}
		tar, _, err := compress.Reader(u.ctx, f)
		if err != nil {
			return nil
		}
		defer tar.Close()
		if l, err := s.Layers.Unpack(u.ctx, tar, ""); err == nil {
			u.mu.Lock()
			u.layers = append(u.layers, l.DiffID)
			u.mu.Unlock()
		}
		return nil
	})
}

// end waits for all of them and returns the layers that were made.
func (u *unpacking) end() []digest.Digest {
	u.group.Wait()
	u.stop()
	return u.layers
}

type naming struct {
	img *image.Image
	tag reference.NamedTagged
}

// undo removes the images that were made, none of which has a name yet.
func (ld *loading) undo() {
	for _, id := range ld.fresh {
		ld.s.Release(ld.holder)
		ld.s.Remove(id.String(), true, false)
	}
}

// use holds what the archive brings, or what is there already and will be used.
func (ld *loading) use(ids ...digest.Digest) {
	ld.used = append(ld.used, ids...)
	ld.s.Hold(ld.holder, ld.used...)
}

func (ld *loading) run(r io.Reader) ([]string, error) {
	plain, _, err := compress.Reader(ld.ctx, r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	tr := tar.NewReader(plain)
	for entries := 0; ; entries++ {
		h, err := tr.Next()
		if err == io.EOF {
			if entries == 0 {
				return nil, fault.Invalid("the archive is empty")
			}
			break
		}
		if err != nil {
			return nil, tarError("broken archive", err)
		}
		if err := ld.entry(h, outer{tr}); err != nil {
			return nil, err
		}
		if err := ld.ctx.Err(); err != nil {
			return nil, context.Cause(ld.ctx)
		}
	}
	ld.ahead.group.Wait()
	if err := ld.makeImages(); err != nil {
		return nil, err
	}
	for _, n := range ld.names {
		if err := ld.s.Name(n.img, n.tag); err != nil {
			return nil, err
		}
	}
	for _, img := range ld.images {
		ld.s.Announce("load", img, img.ID.String())
	}
	return ld.loaded, nil
}

// tarError makes errors about the tar's form Invalid.
func tarError(what string, err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.Invalid("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// outer reads a file of the archive; what is wrong with the archive is Invalid, not an error of reading.
type outer struct{ r io.Reader }

func (o outer) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	if err != nil && err != io.EOF {
		err = tarError("broken archive", err)
	}
	return n, err
}

func cleanName(name string) string { return path.Clean("/" + name)[1:] }

// entry stores one file of the archive.
func (ld *loading) entry(h *tar.Header, r io.Reader) error {
	name := cleanName(h.Name)
	switch h.Typeflag {
	case tar.TypeSymlink:
		ld.links[name] = cleanName(path.Join(path.Dir(name), h.Linkname))
		return nil
	case tar.TypeLink:
		ld.links[name] = cleanName(h.Linkname)
		return nil
	case tar.TypeReg, tar.TypeGNUSparse:
	default:
		return nil
	}
	if rest, ok := strings.CutPrefix(name, blobFolder+"/"); ok {
		alg, hex, _ := strings.Cut(rest, "/")
		return ld.blob(digest.Digest(alg+":"+hex), h.Size, r)
	}
	br := bufio.NewReaderSize(r, 512)
	head, err := br.Peek(512)
	if err != nil && err != io.EOF {
		return tarError(name, err)
	}
	switch {
	case isTar(name, head):
		return ld.layer(name, h.Size, br)
	case h.Size <= maxSmall && ld.sizes+int(h.Size) <= maxAllSmall:
		data, err := io.ReadAll(br)
		if err != nil {
			return tarError(name, err)
		}
		ld.sizes += len(data)
		ld.small[name] = data
	}
	return nil
}

// isTar tells a layer from a config: by what is in it, since programs name them in many ways.
func isTar(name string, head []byte) bool {
	if compress.Detect(head) != compress.None || path.Base(name) == "layer.tar" || path.Ext(name) == ".tar" {
		return true
	}
	return len(head) >= 262 && string(head[257:262]) == "ustar"
}

// blob stores a file of an OCI layout, verified.
func (ld *loading) blob(d digest.Digest, size int64, r io.Reader) error {
	if err := d.Validate(); err != nil {
		return fault.Invalid("archive has a blob with an invalid digest %q: %w", string(d), err)
	}
	ld.use(d)
	if have, err := ld.s.Blobs.Size(d); err == nil && have == size {
		return nil
	}
	w, err := ld.s.Blobs.Once(d)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, ld.counting(d.Encoded(), size, r), make([]byte, 256<<10)); err != nil {
		return tarError("blob "+d.String(), err)
	}
	if _, err = w.Commit(size); err == nil {
		ld.ahead.begin(ld.s, d)
	}
	return err
}

// layer stores a layer tar of a docker-archive.
func (ld *loading) layer(name string, size int64, r io.Reader) error {
	tar, _, err := compress.Reader(ld.ctx, ld.counting(strings.TrimSuffix(name, "/layer.tar"), size, r))
	if err != nil {
		return err
	}
	defer tar.Close()
	l, err := ld.s.CommitTar(ld.ctx, tar)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	ld.use(l.DiffID, l.Blob)
	ld.layers[name] = l
	return nil
}

// counting reports what is read of a layer.
func (ld *loading) counting(id string, total int64, r io.Reader) io.Reader {
	if ld.progress == nil {
		return struct{ io.Reader }{r}
	}
	return &counter{r: r, sink: ld.progress, u: progress.Update{ID: ids.Short(id), Action: "Loading layer", Total: total}}
}

type counter struct {
	r    io.Reader
	sink progress.Sink
	u    progress.Update
	told int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.u.Current += int64(n)
	if c.u.Current-c.told >= 1<<20 || err == io.EOF && c.u.Current > 32<<10 {
		c.told = c.u.Current
		c.sink.Report(c.u)
	}
	return n, err
}

// makeImages makes images of what arrived: first those of the OCI layout, whose manifests keep their digests, then what only
// manifest.json has.
func (ld *loading) makeImages() error {
	var items []item
	if data, ok := ld.small[manifestFile]; ok {
		if err := json.Unmarshal(data, &items); err != nil {
			return fault.Invalid("cannot read manifest.json: %w", err)
		}
	}
	data, oci := ld.small[ocispec.ImageIndexFile]
	if !oci && items == nil {
		return fault.Invalid("this is no image archive: it has neither manifest.json nor index.json")
	}
	if oci {
		var idx ocispec.Index
		if err := json.Unmarshal(data, &idx); err != nil {
			return fault.Invalid("cannot read index.json: %w", err)
		}
		for _, d := range idx.Manifests {
			if err := ld.manifest(d, len(items) > 0); err != nil {
				return err
			}
		}
	}
	for _, it := range items {
		if err := ld.item(it); err != nil {
			return err
		}
	}
	if len(ld.images) == 0 {
		return fault.Invalid("the archive has no image")
	}
	return nil
}

// manifest loads an entry of index.json. With named, manifest.json says the names and blobs may lie elsewhere.
func (ld *loading) manifest(d ocispec.Descriptor, named bool) error {
	if t := d.MediaType; t != "" && !strings.Contains(t, "manifest") && !strings.Contains(t, "index") {
		return nil
	}
	if d.Annotations["vnd.docker.reference.type"] != "" {
		return nil // an attestation
	}
	if _, err := ld.s.Blobs.Size(d.Digest); err != nil && named {
		return nil
	}
	id, diffIDs, err := ld.s.Unpack(ld.ctx, d)
	ld.use(diffIDs...)
	if err != nil {
		return err
	}
	img, err := ld.put(id, func() (*image.Image, error) { return ld.s.PutManifest(d, nil) })
	if err != nil {
		return err
	}
	full := d.Annotations[annotationName]
	if full == "" && !named {
		full = d.Annotations[ocispec.AnnotationRefName]
		if full == "latest" {
			full = "" // a tag without a name
		}
	}
	if full == "" {
		if !named {
			ld.say(img.ID.String())
		}
		return nil
	}
	return ld.name(img, full)
}

// put adds an image and notes whether it is new.
func (ld *loading) put(id digest.Digest, add func() (*image.Image, error)) (*image.Image, error) {
	_, err := ld.s.Get(id.String())
	img, perr := add()
	if perr != nil {
		return nil, perr
	}
	if err != nil {
		ld.fresh = append(ld.fresh, id)
	}
	ld.images[id] = img
	return img, nil
}

func (ld *loading) say(name string) {
	if !slices.Contains(ld.loaded, name) {
		ld.loaded = append(ld.loaded, name)
	}
}

// name sets a name as the archive has it. One that is no valid name, or has a digest only, is not set.
func (ld *loading) name(img *image.Image, full string) error {
	ref, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return fault.Invalid("archive has an invalid image name %q: %w", full, err)
	}
	tag, ok := reference.TagNameOnly(ref).(reference.NamedTagged)
	if !ok {
		ld.say(img.ID.String())
		return nil
	}
	ld.names = append(ld.names, naming{img, tag})
	ld.say(reference.FamiliarString(tag))
	return nil
}

// item loads an image of manifest.json, unless the OCI layout had it.
func (ld *loading) item(it item) error {
	config, err := ld.config(it.Config)
	if err != nil {
		return err
	}
	id := digest.FromBytes(config)
	img := ld.images[id]
	if img == nil {
		layers, err := ld.itemLayers(it, config)
		if err != nil {
			return err
		}
		ld.use(id)
		if img, err = ld.put(id, func() (*image.Image, error) { return ld.s.PutConfig(config, layers) }); err != nil {
			return err
		}
	}
	for _, t := range it.RepoTags {
		if err := ld.name(img, t); err != nil {
			return err
		}
	}
	if len(it.RepoTags) == 0 {
		ld.say(img.ID.String())
	}
	return nil
}

// follow resolves links between the archive's files.
func (ld *loading) follow(name string) string {
	name = cleanName(name)
	for range 8 {
		to, ok := ld.links[name]
		if !ok {
			break
		}
		name = to
	}
	return name
}

func (ld *loading) config(name string) ([]byte, error) {
	name = ld.follow(name)
	if data, ok := ld.small[name]; ok {
		return data, nil
	}
	if d, ok := blobDigest(name); ok {
		return ld.s.Blobs.Bytes(d)
	}
	return nil, fault.Invalid("manifest.json names config %q, which the archive does not have", name)
}

func blobDigest(name string) (digest.Digest, bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 3 || parts[0] != blobFolder {
		return "", false
	}
	d := digest.Digest(parts[1] + ":" + parts[2])
	return d, d.Validate() == nil
}

// itemLayers finds the layers, and holds them against the config.
func (ld *loading) itemLayers(it item, config []byte) ([]layer.Layer, error) {
	var c image.Config
	if err := json.NewDecoder(bytes.NewReader(config)).Decode(&c); err != nil {
		return nil, fault.Invalid("cannot read config %q: %w", it.Config, err)
	}
	if len(c.RootFS.DiffIDs) != len(it.Layers) {
		return nil, fault.Invalid("config %q has %d layers, manifest.json %d", it.Config, len(c.RootFS.DiffIDs), len(it.Layers))
	}
	layers := make([]layer.Layer, len(it.Layers))
	for i, name := range it.Layers {
		l, err := ld.layerAt(ld.follow(name))
		if err != nil {
			return nil, err
		}
		if l.DiffID != c.RootFS.DiffIDs[i] {
			return nil, fault.Invalid("layer %q has diffID %s, config %q says %s", name, l.DiffID, it.Config, c.RootFS.DiffIDs[i])
		}
		layers[i] = l
	}
	return layers, nil
}

func (ld *loading) layerAt(name string) (layer.Layer, error) {
	if l, ok := ld.layers[name]; ok {
		return l, nil
	}
	d, ok := blobDigest(name)
	if !ok {
		return layer.Layer{}, fault.Invalid("manifest.json names layer %q, which the archive does not have", name)
	}
	f, err := ld.s.Blobs.Reader(d)
	if err != nil {
		return layer.Layer{}, err
	}
	defer f.Close()
	tar, _, err := compress.Reader(ld.ctx, f)
	if err != nil {
		return layer.Layer{}, err
	}
	defer tar.Close()
	l, err := ld.s.CommitTar(ld.ctx, tar)
	if err != nil {
		return layer.Layer{}, fmt.Errorf("%s: %w", name, err)
	}
	ld.use(l.DiffID, l.Blob)
	ld.layers[name] = l
	return l, nil
}
