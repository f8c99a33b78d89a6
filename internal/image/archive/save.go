package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/image"
)

// Save streams images to w; blobs that several share are written once. A ref with a tag is saved under that tag, one without
// under all tags of the repository, an id under no name. Nothing is written if one of them does not exist.
func Save(ctx context.Context, s *image.Store, refs []string, w io.Writer) error {
	if len(refs) == 0 {
		return fault.Invalid("no image was named")
	}
	sv := &saving{s: s, images: map[digest.Digest]*saved{}}
	holder := "save " + ids.New()
	defer s.Release(holder)
	for _, ref := range refs {
		if err := sv.add(ref); err != nil {
			return err
		}
		s.Hold(holder, sv.order...)
	}
	if err := sv.write(ctx, w); err != nil {
		return fmt.Errorf("cannot save images: %w", err)
	}
	for _, id := range sv.order {
		s.Announce("save", sv.images[id].img, id.String())
	}
	return nil
}

type saving struct {
	s      *image.Store
	images map[digest.Digest]*saved
	order  []digest.Digest
}

type saved struct {
	img  *image.Image
	tags []reference.NamedTagged
}

func (sv *saving) add(ref string) error {
	img, names, err := sv.find(ref)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.img != nil {
			sv.note(n.img, n.tag)
		}
	}
	if len(names) == 0 {
		sv.note(img, nil)
	}
	return nil
}

type tagged struct {
	img *image.Image
	tag reference.NamedTagged
}

// find resolves what a person typed.
func (sv *saving) find(ref string) (*image.Image, []tagged, error) {
	img, err := sv.s.Get(ref)
	named, parseErr := reference.ParseNormalizedNamed(ref)
	if parseErr == nil && reference.IsNameOnly(named) {
		if all := sv.repository(named.Name()); len(all) > 0 {
			return nil, all, nil
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if parseErr == nil {
		if tag, ok := named.(reference.NamedTagged); ok && sv.has(img, tag) {
			return img, []tagged{{img, tag}}, nil
		}
	}
	return img, nil, nil
}

func (sv *saving) has(img *image.Image, tag reference.NamedTagged) bool {
	for _, n := range img.Names {
		if n == reference.FamiliarString(tag) {
			return true
		}
	}
	return false
}

// repository lists all tags of a repository.
func (sv *saving) repository(name string) []tagged {
	var all []tagged
	for _, img := range sv.s.List() {
		for _, n := range img.Names {
			ref, err := reference.ParseNormalizedNamed(n)
			if err != nil || ref.Name() != name {
				continue
			}
			if tag, ok := ref.(reference.NamedTagged); ok {
				all = append(all, tagged{img, tag})
			}
		}
	}
	return all
}

func (sv *saving) note(img *image.Image, tag reference.NamedTagged) {
	e := sv.images[img.ID]
	if e == nil {
		e = &saved{img: img}
		sv.images[img.ID] = e
		sv.order = append(sv.order, img.ID)
	}
	if tag == nil {
		return
	}
	for _, t := range e.tags {
		if t.String() == tag.String() {
			return
		}
	}
	e.tags = append(e.tags, tag)
}

// write writes the small files first: a reader then knows what follows.
func (sv *saving) write(ctx context.Context, w io.Writer) error {
	tw := tar.NewWriter(w)
	idx := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	idx.SchemaVersion = 2
	items := []item{}
	repositories := map[string]map[string]string{}
	var blobs []digest.Digest
	for _, id := range sv.order {
		e := sv.images[id]
		m, err := sv.manifest(e.img)
		if err != nil {
			return err
		}
		target := e.img.Target
		if p := e.img.Config.Platform; p.OS != runtime.GOOS || p.Architecture != runtime.GOARCH {
			target = e.img.Manifest // others would look for their own platform in the index
		}
		blobs = append(blobs, target.Digest, e.img.Manifest.Digest, m.Config.Digest)
		it := item{Config: blobName(m.Config.Digest), Layers: []string{}}
		for _, l := range m.Layers {
			blobs = append(blobs, l.Digest)
			it.Layers = append(it.Layers, blobName(l.Digest))
		}
		for _, t := range e.tags {
			it.RepoTags = append(it.RepoTags, reference.FamiliarString(t))
			repo := reference.FamiliarName(t)
			if repositories[repo] == nil {
				repositories[repo] = map[string]string{}
			}
			repositories[repo][t.Tag()] = id.Encoded()
			d := target
			d.Annotations = map[string]string{annotationName: t.String(), ocispec.AnnotationRefName: t.Tag()}
			idx.Manifests = append(idx.Manifests, d)
		}
		if len(e.tags) == 0 {
			idx.Manifests = append(idx.Manifests, target)
		}
		items = append(items, it)
	}
	for _, f := range []struct {
		name string
		v    any
	}{{ocispec.ImageIndexFile, idx}, {manifestFile, items}, {repositoriesFile, repositories}} {
		data, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if f.name == repositoriesFile && len(repositories) == 0 {
			continue
		}
		if err := small(tw, f.name, data); err != nil {
			return err
		}
	}
	if err := small(tw, ocispec.ImageLayoutFile, layout()); err != nil {
		return err
	}
	if err := sv.blobs(ctx, tw, blobs); err != nil {
		return err
	}
	return tw.Close()
}

func (sv *saving) manifest(img *image.Image) (*ocispec.Manifest, error) {
	data, err := sv.s.Blobs.Bytes(img.Manifest.Digest)
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	return &m, json.Unmarshal(data, &m)
}

// entryTime is on every entry, so that the same images give the same bytes.
var entryTime = time.Unix(0, 0)

func small(tw *tar.Writer, name string, data []byte) error {
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: entryTime}); err != nil {
		return err
	}
	_, err := tw.Write(data)
	return err
}

func (sv *saving) blobs(ctx context.Context, tw *tar.Writer, blobs []digest.Digest) error {
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: entryTime}); err != nil {
			return err
		}
	}
	done := map[digest.Digest]bool{}
	for _, d := range blobs {
		if done[d] {
			continue
		}
		done[d] = true
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := sv.blob(tw, d); err != nil {
			return err
		}
	}
	return nil
}

func (sv *saving) blob(tw *tar.Writer, d digest.Digest) error {
	f, err := sv.s.Blobs.Reader(d)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: blobName(d), Mode: 0o644, Size: info.Size(), ModTime: entryTime}); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{tw}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	return err
}
