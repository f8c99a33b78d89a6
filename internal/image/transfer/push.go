package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/auxprogress"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/base/progress"
	"tare/internal/image"
	"tare/internal/image/compress"
	"tare/internal/image/registry"
)

// uploadsAtOnce bounds the blobs of one push that move at a time, as Docker's max-concurrent-uploads.
const uploadsAtOnce = 5

// PushRequest sends one name, or with AllTags all names of the repository.
type PushRequest struct {
	Ref      reference.Named
	AllTags  bool
	Platform *ocispec.Platform // only this platform of an index; nil: all that is here
	Auth     *registrytypes.AuthConfig
	// Compression sends the layers in another form than the store has: the manifest is another one then, and an index goes as the
	// one manifest that is here.
	Compression compress.Form
}

// PushResult is what a push tells its client at the end, with Docker's field names.
type PushResult struct {
	Tag    string
	Digest string
	Size   int
}

// Push sends what the registry does not have. Aux of the last update is a PushResult.
func (s *Service) Push(ctx context.Context, req PushRequest, p progress.Sink) error {
	refs, err := s.names(req)
	if err != nil {
		return err
	}
	repo := s.registry.Repository(req.Ref, req.Auth, registry.Push)
	p.Status("", fmt.Sprintf("The push refers to repository [%s]", repo.Name().Name()))
	o := &outgoing{s: s, repo: repo, sink: p, done: map[digest.Digest]bool{}}
	for _, ref := range refs {
		if err := o.push(ctx, ref, req); err != nil {
			return err
		}
	}
	return nil
}

// names lists what is to be pushed.
func (s *Service) names(req PushRequest) ([]reference.NamedTagged, error) {
	name := reference.TrimNamed(req.Ref)
	var refs []reference.NamedTagged
	for _, img := range s.store.List() {
		for _, n := range img.Names {
			ref, err := reference.ParseNormalizedNamed(n)
			if err != nil {
				continue
			}
			if tagged, ok := reference.TagNameOnly(ref).(reference.NamedTagged); ok && ref.Name() == name.Name() {
				refs = append(refs, tagged)
			}
		}
	}
	if len(refs) == 0 {
		return nil, fault.NotFound("An image does not exist locally with the tag: %s", reference.FamiliarName(name))
	}
	if req.AllTags {
		slices.SortFunc(refs, func(a, b reference.NamedTagged) int {
			if a.Tag() < b.Tag() {
				return -1
			}
			return 1
		})
		return refs, nil
	}
	if _, ok := req.Ref.(reference.Digested); ok {
		return nil, fault.Invalid("cannot push a digest reference")
	}
	want := reference.TagNameOnly(req.Ref).(reference.NamedTagged)
	for _, ref := range refs {
		if ref.Tag() == want.Tag() {
			return []reference.NamedTagged{ref}, nil
		}
	}
	return nil, fault.NotFound("tag does not exist: %s", reference.FamiliarString(want))
}

// outgoing is one push, of one or several tags of a repository.
type outgoing struct {
	s    *Service
	repo *registry.Repository
	sink progress.Sink
	done map[digest.Digest]bool // blobs that the registry is known to have
}

// push sends one tag. Manifests go as they are stored, byte for byte.
func (o *outgoing) push(ctx context.Context, ref reference.NamedTagged, req PushRequest) error {
	img, err := o.s.store.Get(reference.FamiliarString(ref))
	if err != nil {
		return err
	}
	var plan *parts
	var note any
	if req.Compression != "" {
		arrived := o.s.store.Arrive()
		d, made, err := image.Recompress(ctx, o.s.store, img, req.Compression)
		defer func() {
			arrived()
			o.s.store.Discard(made...)
		}()
		if err != nil {
			return err
		}
		plan = &parts{top: d}
		if err := o.add(plan, d); err != nil {
			return err
		}
	} else if plan, note, err = o.plan(img, req.Platform); err != nil {
		return err
	}
	if err := o.blobs(ctx, plan.blobs); err != nil {
		return err
	}
	for _, m := range plan.manifests {
		name := m.Digest.String()
		if m.Digest == plan.top.Digest {
			name = ref.Tag()
		}
		data, err := o.s.store.Blobs.Bytes(m.Digest)
		if err != nil {
			return err
		}
		if err := o.repo.PutManifest(ctx, name, m.MediaType, data); err != nil {
			return err
		}
	}
	if err := o.said(ctx, img, plan); err != nil {
		return err
	}
	top := plan.top
	o.sink.Status("", fmt.Sprintf("%s: digest: %s size: %d", ref.Tag(), top.Digest, top.Size))
	if note != nil {
		o.sink.Report(progress.Update{Aux: note})
	}
	o.sink.Report(progress.Update{Aux: PushResult{Tag: ref.Tag(), Digest: top.Digest.String(), Size: int(top.Size)}})
	if top.Digest == img.Target.Digest {
		o.remember(img, ref)
	}
	o.s.publish("push", ref, img.Config.Config.Labels)
	return nil
}

// said sends the manifests that refer to what was sent.
func (o *outgoing) said(ctx context.Context, img *image.Image, plan *parts) error {
	for _, a := range (image.Attachments{Store: o.s.store}).Attached(img) {
		sent := slices.ContainsFunc(plan.manifests, func(m ocispec.Descriptor) bool { return m.Digest == a.Subject })
		if !a.Referrer || !sent {
			continue
		}
		var blobs []part
		for _, b := range a.Blobs {
			blobs = append(blobs, part{b, false})
		}
		if err := o.blobs(ctx, blobs); err != nil {
			return err
		}
		data, err := o.s.store.Blobs.Bytes(a.Manifest.Digest)
		if err != nil {
			return err
		}
		if err := o.repo.PutReferrer(ctx, a.Subject, a.Manifest, data); err != nil {
			return err
		}
	}
	return nil
}

// remember notes the digest that the registry has the image by. That it can't be noted is no failed push.
func (o *outgoing) remember(img *image.Image, ref reference.Named) {
	if canonical, err := reference.WithDigest(reference.TrimNamed(ref), img.Target.Digest); err == nil {
		o.s.store.PutManifest(img.Target, canonical)
	}
}

// parts is what one tag consists of: manifests in the order to send them, top last.
type parts struct {
	top       ocispec.Descriptor
	manifests []ocispec.Descriptor
	blobs     []part
}

// part is a config or layer.
type part struct {
	desc  ocispec.Descriptor
	layer bool
}

// plan decides what to send. An index whose platforms are not all here goes as the one manifest that is; note tells the client so.
func (o *outgoing) plan(img *image.Image, platform *ocispec.Platform) (*parts, any, error) {
	target := img.Target
	if !isIndex(target.MediaType) {
		p := &parts{top: target}
		return p, nil, o.add(p, target)
	}
	data, err := o.s.store.Blobs.Bytes(target.Digest)
	if err != nil {
		return nil, nil, err
	}
	doc, err := parse(data, target)
	if err != nil {
		return nil, nil, err
	}
	if platform != nil {
		chosen, err := choose(doc.Manifests, *platform)
		if err != nil {
			return nil, nil, err
		}
		p := &parts{top: chosen}
		return p, nil, o.add(p, chosen)
	}
	whole := &parts{top: target}
	var missing error
	for _, m := range doc.Manifests {
		if err := o.add(whole, m); errdefs.IsNotFound(err) {
			missing = err
			break
		} else if err != nil {
			return nil, nil, err
		}
	}
	if missing == nil {
		whole.manifests = append(whole.manifests, target)
		return whole, nil, nil
	}
	one := &parts{top: img.Manifest}
	if err := o.add(one, img.Manifest); err != nil {
		return nil, nil, err
	}
	return one, auxprogress.ManifestPushedInsteadOfIndex{
		ManifestPushedInsteadOfIndex: true, OriginalIndex: target, SelectedManifest: img.Manifest}, nil
}

// add puts a manifest and its blobs into the plan; NotFound if one of them is not in the store.
func (o *outgoing) add(p *parts, m ocispec.Descriptor) error {
	data, err := o.s.store.Blobs.Bytes(m.Digest)
	if err != nil {
		return err
	}
	doc, err := parseAny(data, m)
	if err != nil {
		return err
	}
	for _, l := range doc.parts() {
		if err := o.have(l); err != nil {
			return err
		}
		p.blobs = append(p.blobs, part{l, l.Digest != doc.Config.Digest})
	}
	p.manifests = append(p.manifests, m)
	return nil
}

func (o *outgoing) have(d ocispec.Descriptor) error {
	if _, err := o.s.store.Blobs.Size(d.Digest); err != nil {
		return fault.NotFound("cannot push: blob %s is not in the store (pull the image again, for all platforms): %w", d.Digest, err)
	}
	return nil
}

// blobs sends config and layers, several at once.
func (o *outgoing) blobs(ctx context.Context, all []part) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(o.s.uploads)
	var todo []part
	for _, p := range all {
		if o.done[p.desc.Digest] {
			continue
		}
		o.done[p.desc.Digest] = true
		todo = append(todo, p)
		if p.layer {
			o.sink.Status(ids.Short(p.desc.Digest.String()), "Preparing")
		}
	}
	for i, p := range todo {
		if i >= o.s.uploads && p.layer {
			o.sink.Status(ids.Short(p.desc.Digest.String()), "Waiting")
		}
	}
	sources := o.sources()
	for _, p := range todo {
		group.Go(func() error { return o.blob(ctx, p, sources[p.desc.Digest]) })
	}
	err := group.Wait()
	if err != nil {
		clear(o.done)
	}
	return err
}

// blob makes sure that the registry has one blob: it is there, or mounted, or uploaded.
func (o *outgoing) blob(ctx context.Context, p part, sources []reference.Named) error {
	id := ids.Short(p.desc.Digest.String())
	say := func(action string) {
		if p.layer {
			o.sink.Status(id, action)
		}
	}
	has, err := o.repo.HasBlob(ctx, p.desc.Digest)
	if err != nil {
		return err
	}
	if has {
		say("Layer already exists")
		return nil
	}
	for _, from := range sources {
		mounted, err := o.repo.Mount(ctx, p.desc.Digest, from)
		if err != nil {
			return err
		}
		if mounted {
			say("Mounted from " + reference.Path(from))
			return nil
		}
	}
	f, err := o.s.store.Blobs.Reader(p.desc.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	var told time.Time
	err = o.repo.Upload(ctx, p.desc, f, func(n int64) {
		if now := time.Now(); p.layer && now.Sub(told) >= reportEvery {
			told = now
			o.sink.Report(progress.Update{ID: id, Action: "Pushing", Current: n, Total: p.desc.Size})
		}
	})
	if err != nil {
		if e := (*registry.Error)(nil); errors.As(err, &e) && e.Has("DIGEST_INVALID") {
			return fault.Internal("blob %s in the store is damaged: the registry refused it; remove and pull or build the image again: %w", p.desc.Digest, err)
		}
		return err
	}
	say("Pushed")
	return nil
}

// mountTries bounds how many repositories a registry is asked to mount one blob from.
const mountTries = 4

// sources finds, for each blob, the other repositories of this registry that images here came from or went to.
func (o *outgoing) sources() map[digest.Digest][]reference.Named {
	found := map[digest.Digest][]reference.Named{}
	host := reference.Domain(o.repo.Name())
	for _, img := range o.s.store.List() {
		var names []reference.Named
		for _, d := range img.Digests {
			ref, err := reference.ParseNormalizedNamed(d)
			if err == nil && reference.Domain(ref) == host && ref.Name() != o.repo.Name().Name() {
				names = append(names, reference.TrimNamed(ref))
			}
		}
		if len(names) == 0 {
			continue
		}
		data, err := o.s.store.Blobs.Bytes(img.Manifest.Digest)
		if err != nil {
			continue
		}
		doc, err := parse(data, img.Manifest)
		if err != nil {
			continue
		}
		for _, l := range doc.Layers {
			for _, n := range names {
				same := func(other reference.Named) bool { return other.Name() == n.Name() }
				if len(found[l.Digest]) < mountTries && !slices.ContainsFunc(found[l.Digest], same) {
					found[l.Digest] = append(found[l.Digest], n)
				}
			}
		}
	}
	return found
}
