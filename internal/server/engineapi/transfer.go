package engineapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
	"tare/internal/base/progress"
	"tare/internal/image"
	"tare/internal/image/archive"
	"tare/internal/image/compress"
	"tare/internal/image/transfer"
)

// transferService moves images from and to registries.
type transferService interface {
	Pull(ctx context.Context, req transfer.PullRequest, p progress.Sink) (*image.Image, error)
	Push(ctx context.Context, req transfer.PushRequest, p progress.Sink) error
}

// imageArchives moves images from and to files.
type imageArchives interface {
	Save(ctx context.Context, refs []string, w io.Writer) error
	Load(ctx context.Context, r io.Reader, p progress.Sink) ([]string, error)
	Import(ctx context.Context, r io.Reader, config *image.Config, name reference.NamedTagged, p progress.Sink) (*image.Image, error)
}

// Archives are the archives of one store.
type Archives struct{ Store *image.Store }

func (a Archives) Save(ctx context.Context, refs []string, w io.Writer) error {
	return archive.Save(ctx, a.Store, refs, w)
}

func (a Archives) Load(ctx context.Context, r io.Reader, p progress.Sink) ([]string, error) {
	return archive.Load(ctx, a.Store, r, p)
}

func (a Archives) Import(ctx context.Context, r io.Reader, config *image.Config, name reference.NamedTagged, p progress.Sink) (*image.Image, error) {
	return archive.Import(ctx, a.Store, r, config, name, p)
}

type transferDoor struct {
	s        transferService
	archives imageArchives
	images   imageStore
	attached attachedStore // nil: nothing is known about images
	auth     *registry.AuthConfig
}

// attachedStore is what is said about images.
type attachedStore interface {
	Attached(img *image.Image) []image.Attached
	Statement(d ocispec.Descriptor) ([]byte, error)
}

func (d transferDoor) credentials(r *http.Request) (*registry.AuthConfig, error) {
	a, err := auth(r)
	if a == nil && err == nil {
		a = d.auth
	}
	return a, err
}

// create pulls an image, or imports one from the body or a URL.
func (d transferDoor) create(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	if r.FormValue("fromImage") == "" {
		return d.importImage(w, r)
	}
	a, err := d.credentials(r)
	if err != nil {
		return err
	}
	ref, allTags, err := pullName(r.FormValue("fromImage"), r.FormValue("tag"))
	if err != nil {
		return err
	}
	p, err := parsePlatform(r.FormValue("platform"))
	if err != nil {
		return err
	}
	out := newLines(w)
	_, err = d.s.Pull(r.Context(), transfer.PullRequest{Ref: ref, AllTags: allTags, Platform: p, Auth: a}, out.sink)
	return out.close(err)
}

// pullName joins fromImage and tag; tag may be a digest. Neither a tag nor a digest asks for all tags.
func pullName(from, tag string) (reference.Named, bool, error) {
	ref, err := reference.ParseNormalizedNamed(strings.TrimSuffix(from, ":"))
	if err != nil {
		return nil, false, fault.Invalid("invalid reference format: %q: %w", from, err)
	}
	if tag != "" {
		if dgst, derr := digest.Parse(tag); derr == nil {
			ref, err = reference.WithDigest(reference.TrimNamed(ref), dgst)
		} else {
			ref, err = reference.WithTag(reference.TrimNamed(ref), tag)
		}
		if err != nil {
			return nil, false, fault.Invalid("invalid reference format: %q: %w", tag, err)
		}
	}
	return ref, reference.IsNameOnly(ref), nil
}

func (d transferDoor) importImage(w http.ResponseWriter, r *http.Request) error {
	name, err := parseTag(r.FormValue("repo"), r.FormValue("tag"))
	if err != nil {
		return err
	}
	p, err := parsePlatform(r.FormValue("platform"))
	if err != nil {
		return err
	}
	config, err := importConfig(r, p)
	if err != nil {
		return err
	}
	defer fullDuplex(w, r)()
	body, out := io.Reader(r.Body), newLines(w)
	switch src := r.FormValue("fromSrc"); src {
	case "":
		return fault.Invalid("fromImage or fromSrc is required")
	case "-":
	default:
		remote, err := download(r.Context(), src, out)
		if err != nil {
			return out.close(err)
		}
		defer remote.Close()
		body = remote
	}
	img, err := d.archives.Import(r.Context(), body, config, name, out.sink)
	if err == nil {
		out.send(message{Status: img.ID.String()})
	}
	return out.close(err)
}

// download opens a URL to import from.
func download(ctx context.Context, src string, out *lines) (io.ReadCloser, error) {
	u, err := url.Parse(src)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fault.Invalid("cannot import from %q: not an http or https URL", src)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fault.Invalid("cannot import from %q: %w", src, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fault.Unavailable("cannot import from %s: %w", src, err)
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, fault.Invalid("cannot import from %s: the server answered %s", src, res.Status)
	}
	out.send(message{Status: "Downloading from " + src})
	return res.Body, nil
}

func (d transferDoor) push(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	a, err := d.credentials(r)
	if err != nil {
		return err
	}
	ref, err := reference.ParseNormalizedNamed(r.PathValue("name"))
	if err != nil {
		return fault.Invalid("invalid reference format: %q: %w", r.PathValue("name"), err)
	}
	if tag := r.FormValue("tag"); tag != "" {
		if ref, err = reference.WithTag(reference.TrimNamed(ref), tag); err != nil {
			return fault.Invalid("invalid tag %q: %w", tag, err)
		}
	}
	if s := r.FormValue("platform"); s != "" {
		p, err := parsePlatform(s)
		if err != nil {
			return err
		}
		if _, err := getFor(d.images, reference.FamiliarString(ref), p); err != nil {
			return err
		}
	}
	form := compress.Form(r.FormValue("compression")) // Tare's own
	if form != "" && form != compress.Gzip && form != compress.Zstd {
		return fault.Invalid("invalid compression %q: want gzip or zstd", string(form))
	}
	out := newLines(w)
	return out.close(d.s.Push(r.Context(), transfer.PushRequest{Ref: ref, AllTags: reference.IsNameOnly(ref), Auth: a, Compression: form}, out.sink))
}

// save sends images as one tar. What can't be found is told before the first byte.
func (d transferDoor) save(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	refs := r.Form["names"]
	if name := r.PathValue("name"); name != "" {
		refs = []string{name}
	}
	if len(refs) == 0 {
		return fault.Invalid("no image names given")
	}
	for _, ref := range refs {
		if err := d.checkPlatforms(ref, r.Form["platform"]); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "application/x-tar")
	return cut(w, d.archives.Save(r.Context(), refs, w))
}

// checkPlatforms finds the image for each platform that is asked for; none asks for the one that is here.
func (d transferDoor) checkPlatforms(ref string, wanted []string) error {
	if len(wanted) == 0 {
		wanted = []string{""}
	}
	for _, s := range wanted {
		p, err := parsePlatform(s)
		if err != nil {
			return err
		}
		if _, err := getFor(d.images, ref, p); err != nil {
			return err
		}
	}
	return nil
}

func (d transferDoor) load(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	for _, s := range r.Form["platform"] {
		if _, err := parsePlatform(s); err != nil {
			return err
		}
	}
	defer fullDuplex(w, r)()
	out := newLines(w)
	sink := out.sink
	if boolean(r, "quiet") {
		sink = nil
	}
	names, err := d.archives.Load(r.Context(), r.Body, sink)
	for _, n := range names {
		if err != nil {
			break
		}
		if perr := d.checkPlatforms(n, r.Form["platform"]); perr != nil {
			err = perr
			break
		}
		if _, derr := digest.Parse(n); derr == nil {
			out.Stream("Loaded image ID: " + n + "\n")
		} else {
			out.Stream("Loaded image: " + n + "\n")
		}
	}
	return out.close(err)
}

// attestations lists the in-toto statements that came with an image in its index. With statement=true they are given whole.
func (d transferDoor) attestations(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	if len(r.Form["platform"]) > 1 {
		return fault.Invalid("only one platform may be given")
	}
	if err := d.checkPlatforms(r.PathValue("name"), r.Form["platform"]); err != nil {
		return err
	}
	list := []imagetypes.AttestationStatement{}
	if d.attached == nil {
		return writeJSON(w, http.StatusOK, list)
	}
	img, err := d.images.Get(r.PathValue("name"))
	if err != nil {
		return err
	}
	for _, a := range d.attached.Attached(img) {
		if a.Referrer {
			continue
		}
		for _, b := range a.Blobs {
			if b.MediaType != "application/vnd.in-toto+json" {
				continue
			}
			data, err := d.attached.Statement(b)
			if err != nil {
				return err
			}
			var head struct {
				PredicateType string `json:"predicateType"`
			}
			if err := json.Unmarshal(data, &head); err != nil {
				return fault.Invalid("cannot read statement %s: %w", b.Digest, err)
			}
			if t := r.FormValue("type"); t != "" && t != head.PredicateType {
				continue
			}
			s := imagetypes.AttestationStatement{Descriptor: b, PredicateType: head.PredicateType}
			if boolean(r, "statement") {
				raw := json.RawMessage(data)
				s.Statement = &raw
			}
			list = append(list, s)
		}
	}
	return writeJSON(w, http.StatusOK, list)
}
