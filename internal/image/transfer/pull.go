package transfer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/base/progress"
	"tare/internal/base/trace"
	"tare/internal/image"
	"tare/internal/image/registry"
)

// PullRequest asks for one image, or with AllTags for all of a repository.
type PullRequest struct {
	Ref      reference.Named
	AllTags  bool
	Platform *ocispec.Platform // nil: this host's
	Auth     *registrytypes.AuthConfig
}

// Pull fetches the image; progress and the closing lines ("Digest: …", "Status: …") are Docker's. With AllTags
// the image of the last tag is returned.
func (s *Service) Pull(ctx context.Context, req PullRequest, p progress.Sink) (*image.Image, error) {
	repo := s.registry.Repository(req.Ref, req.Auth, registry.Pull)
	if !req.AllTags {
		return s.pull(ctx, repo, reference.TagNameOnly(req.Ref), req.Platform, p)
	}
	tags, err := repo.Tags(ctx)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		return nil, fault.NotFound("repository %s has no tags", reference.FamiliarName(req.Ref))
	}
	var img *image.Image
	for _, tag := range tags {
		if registry.IsReferrersTag(tag) {
			continue
		}
		ref, err := reference.WithTag(repo.Name(), tag)
		if err != nil {
			return nil, fault.Invalid("registry lists a tag that is none: %q", tag)
		}
		if img, err = s.pull(ctx, repo, ref, req.Platform, p); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// pull fetches one reference that has a tag or digest.
func (s *Service) pull(ctx context.Context, repo *registry.Repository, ref reference.Named, platform *ocispec.Platform, p progress.Sink) (*image.Image, error) {
	what := registry.TagOrDigest(ref)
	trace.Step(ctx, "image", "manifest", "", reference.FamiliarString(ref))
	data, target, err := repo.Manifest(ctx, what)
	if err != nil {
		return nil, err
	}
	// Nothing is told before: what is not there is to be answered by an error and its status, not by an error in progress.
	p.Status(what, "Pulling from "+reference.Path(ref))
	old, _ := s.store.Get(reference.FamiliarString(ref))
	done := s.store.Arrive()
	defer done()
	j := &job{s: s, repo: repo, ref: ref, sink: p}
	if err := j.fetch(ctx, data, target, platform); err != nil {
		j.stop()
		done()
		return nil, j.discard(err)
	}
	if isIndex(target.MediaType) {
		target.Platform = platform // which of the index's manifests the name is to mean here
	}
	trace.Step(ctx, "image", "name", "image", reference.FamiliarString(ref))
	img, err := s.store.PutManifest(target, ref)
	if err != nil {
		done()
		return nil, j.discard(err)
	}
	for _, a := range j.said(ctx) {
		if a.referrer {
			if err := (image.Attachments{Store: s.store}).Attach(a.subject, a.manifest); err != nil {
				slog.Warn("what is said of an image is not kept", "image", reference.FamiliarString(ref), "error", err)
			}
		}
	}
	p.Status("", "Digest: "+target.Digest.String())
	status := "Downloaded newer image for "
	if old != nil && old.ID == img.ID && old.Target.Digest == img.Target.Digest {
		status = "Image is up to date for "
	}
	p.Status("", "Status: "+status+reference.FamiliarString(ref))
	trace.Step(ctx, "image", "event", "pull", reference.FamiliarString(ref))
	s.publish("pull", ref, img.Config.Config.Labels)
	return img, nil
}

// job is the arrival of one image.
type job struct {
	s      *Service
	repo   *registry.Repository
	ref    reference.Named
	sink   progress.Sink
	doc    *document
	config image.Config
	about  chan []attachment  // what is said about the image, once
	made   []digest.Digest    // blobs that were not there before
	end    context.CancelFunc // of that search
	layers []digest.Digest    // diffIDs that were not there before
}

// fetch brings everything that target needs on the platform into the store.
func (j *job) fetch(ctx context.Context, data []byte, target ocispec.Descriptor, platform *ocispec.Platform) error {
	if err := j.put(target, data); err != nil {
		return err
	}
	manifest := target
	doc, err := parse(data, target)
	if err != nil {
		return err
	}
	var index *document
	if isIndex(target.MediaType) {
		index = doc
		want := host()
		if platform != nil {
			want = *platform
		}
		if manifest, err = choose(doc.Manifests, want); err != nil {
			return err
		}
		if data, err = j.manifest(ctx, &manifest); err != nil {
			return err
		}
		if doc, err = parse(data, manifest); err != nil {
			return err
		}
		if isIndex(manifest.MediaType) {
			return fault.Invalid("index %s contains another index, which is not supported", target.Digest)
		}
	}
	j.doc = doc
	j.about = make(chan []attachment, 1)
	ctx, j.end = context.WithCancel(ctx)
	go func() {
		side := &job{s: j.s, repo: j.repo, ref: j.ref}
		j.about <- side.attached(ctx, target, index, manifest)
	}()
	return j.parts(ctx, platform)
}

// said waits, not for long, for what came about the image. It ends the search.
func (j *job) said(ctx context.Context) []attachment {
	defer j.end()
	t := time.NewTimer(attachedWait)
	defer t.Stop()
	select {
	case all := <-j.about:
		return all
	case <-t.C:
		slog.Warn("what is said of an image did not come in time", "image", j.ref)
	case <-ctx.Done():
	}
	return nil
}

// stop ends the search, and waits for its end: nothing comes any more then.
func (j *job) stop() {
	if j.end != nil {
		j.end()
		<-j.about
	}
}

// manifest gets the chosen entry of an index, from the store if it is there.
func (j *job) manifest(ctx context.Context, d *ocispec.Descriptor) ([]byte, error) {
	j.s.store.Blobs.Claim(d.Digest)
	if data, err := j.s.store.Blobs.Bytes(d.Digest); err == nil {
		return data, nil
	}
	trace.Step(ctx, "image", "manifest", "manifest", d.Digest.String())
	data, got, err := j.repo.Manifest(ctx, d.Digest.String())
	if err != nil {
		return nil, err
	}
	if d.MediaType != got.MediaType {
		return nil, fault.Invalid("manifest %s is %s, its index says %s", d.Digest, got.MediaType, d.MediaType)
	}
	return data, j.put(got, data)
}

// put stores a small blob under its (verified) digest.
func (j *job) put(d ocispec.Descriptor, data []byte) error {
	if _, err := j.s.store.Blobs.Claim(d.Digest); err == nil {
		return nil
	}
	// Not Writer, which waits for another one of the digest: a hostile manifest has a config that is its layer, too, which waits for the config.
	w, err := j.s.store.Blobs.Once(d.Digest)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.Write(data); err != nil {
		return err
	}
	if _, err := w.Commit(int64(len(data))); err != nil {
		return err
	}
	j.made = append(j.made, d.Digest)
	return nil
}

// parts fetches config and layers at once.
func (j *job) parts(ctx context.Context, platform *ocispec.Platform) error {
	group, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{}) // closed when the config is checked
	var broken error             // why there is no config; valid after ready
	order := []int{}             // of layers, the first of equal digests each
	seen := map[digest.Digest]bool{}
	for i, l := range j.doc.Layers {
		if seen[l.Digest] {
			continue
		}
		seen[l.Digest] = true
		order = append(order, i)
		if _, err := j.s.store.Blobs.Size(l.Digest); err != nil {
			j.made = append(j.made, l.Digest)
			j.sink.Status(ids.Short(l.Digest.String()), "Pulling fs layer")
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(j.doc.Layers[b].Size, j.doc.Layers[a].Size) })
	diffID := func(i int) func(context.Context) (digest.Digest, error) {
		return func(ctx context.Context) (digest.Digest, error) {
			select {
			case <-ready:
				if broken != nil {
					return "", broken
				}
				return j.config.RootFS.DiffIDs[i], nil
			case <-ctx.Done():
				return "", context.Cause(ctx)
			}
		}
	}
	beside := trace.Beside(ctx)
	group.Go(func() error {
		defer close(ready)
		broken = j.fetchConfig(beside, platform)
		return broken
	})
	for _, i := range order {
		l, beside := j.doc.Layers[i], trace.Beside(ctx)
		group.Go(func() error {
			return j.s.flights.do(beside, l.Digest, j.sink, func(flightCtx context.Context, sink progress.Sink) error {
				a := &arrival{s: j.s, repo: j.repo, desc: l, diffID: diffID(i), sink: sink, id: ids.Short(l.Digest.String())}
				return a.run(flightCtx)
			})
		})
	}
	err := group.Wait()
	if err == nil {
		return j.twins(ctx)
	}
	if stopped(err) && context.Cause(ctx) != nil && !stopped(context.Cause(ctx)) {
		err = context.Cause(ctx)
	}
	return err
}

// twins checks that layers with one blob have one diffID.
func (j *job) twins(context.Context) error {
	ids := map[digest.Digest]digest.Digest{}
	for i, l := range j.doc.Layers {
		d := j.config.RootFS.DiffIDs[i]
		if first, ok := ids[l.Digest]; ok && first != d {
			return fault.Invalid("config %s gives layer %s two diffIDs", j.doc.Config.Digest, l.Digest)
		}
		ids[l.Digest] = d
	}
	return nil
}

// fetchConfig gets and checks the config.
func (j *job) fetchConfig(ctx context.Context, platform *ocispec.Platform) error {
	d := j.doc.Config
	j.s.store.Blobs.Claim(d.Digest)
	data, err := j.s.store.Blobs.Bytes(d.Digest)
	if err != nil {
		trace.Step(ctx, "image", "download", "config", d.Digest.String())
		body, err := j.repo.Blob(ctx, d, 0)
		if err != nil {
			return err
		}
		data, err = io.ReadAll(io.LimitReader(body, d.Size+1))
		body.Close()
		if err != nil {
			return err
		}
		if got := d.Digest.Algorithm().FromBytes(data); got != d.Digest {
			return fault.Invalid("config %s of %s %w: its content has digest %s", d.Digest, j.repo.Name(), errDamaged, got)
		}
		trace.Step(ctx, "image", "verify", "config", d.Digest.String())
		if err := j.put(d, data); err != nil {
			return err
		}
	}
	if err := image.Dense(data); err != nil {
		return fault.Invalid("config %s: %w", d.Digest, err)
	}
	if err := json.Unmarshal(data, &j.config); err != nil {
		return fault.Invalid("cannot read config %s: %w", d.Digest, err)
	}
	if len(j.config.RootFS.DiffIDs) != len(j.doc.Layers) {
		return fault.Invalid("config %s has %d layers, its manifest has %d", d.Digest, len(j.config.RootFS.DiffIDs), len(j.doc.Layers))
	}
	for _, l := range j.config.RootFS.DiffIDs {
		if l.Validate() != nil || l.Algorithm() != digest.SHA256 {
			return fault.Invalid("config %s has invalid diffID %q", d.Digest, string(l))
		}
		if _, err := j.s.store.Layers.Get(l); err != nil {
			j.layers = append(j.layers, l)
		}
	}
	have := j.config.Platform
	if platform != nil && have.OS != "" && fit(*platform, have) == 0 {
		return fault.NotFound("image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
			reference.FamiliarString(j.ref), platformName(have), platformName(*platform))
	}
	return nil
}

// discard removes what a pull that can't succeed brought in, so that a full disk is not full because
// of it. What a cancelled or cut pull brought stays, for the next one to go on with; so does what others use. It returns cause.
func (j *job) discard(cause error) error {
	if !errors.Is(cause, unix.ENOSPC) && !errors.Is(cause, errDamaged) && !errdefs.IsInvalidArgument(cause) {
		return cause
	}
	err := j.s.store.Discard(append(j.layers, j.made...)...)
	for _, d := range j.made {
		if j.s.flights.flying(d) {
			continue
		}
		if w, werr := j.s.store.Blobs.Writer(context.Background(), d); werr == nil {
			w.Reset()
			w.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("%w; and cannot remove what came: %v", cause, err)
	}
	return cause
}
