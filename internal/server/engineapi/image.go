package engineapi

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
	enginecontainer "tare/internal/engine/container"
	"tare/internal/image"
)

type (
	imageRecord = image.Image
	named       = reference.Named
)

// imageStore is the images of this engine.
type imageStore interface {
	Get(ref string) (*image.Image, error)
	List() []*image.Image
	Lower(img *image.Image) ([]string, error)
	Tag(ref string, name reference.NamedTagged) error
	Remove(ref string, force, pruneParents bool) ([]image.Removed, error)
	Prune(f filter.Args) ([]image.Removed, int64, error)
	Disk() (image.Disk, error)
}

type imageDoor struct {
	s          imageStore
	containers containerLister
}

// parseName reads a name as people write it; the tag is "latest" unless it has a tag or digest.
func parseName(s string) (reference.Named, error) {
	ref, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, fault.Invalid("invalid reference format: %q: %w", s, err)
	}
	return reference.TagNameOnly(ref), nil
}

// parseTag joins a repository and a tag to the name that an image is to get; "" is nil.
func parseTag(repo, tag string) (reference.NamedTagged, error) {
	if repo == "" {
		return nil, nil
	}
	ref, err := reference.ParseNormalizedNamed(repo)
	if err != nil {
		return nil, fault.Invalid("invalid reference format: %q: %w", repo, err)
	}
	if _, ok := ref.(reference.Digested); ok {
		return nil, fault.Invalid("refusing to create a tag with a digest reference")
	}
	if tag != "" {
		t, err := reference.WithTag(reference.TrimNamed(ref), tag)
		if err != nil {
			return nil, fault.Invalid("invalid tag %q: %w", tag, err)
		}
		return t, nil
	}
	t, ok := reference.TagNameOnly(ref).(reference.NamedTagged)
	if !ok {
		return nil, fault.Invalid("invalid reference format: %q", repo)
	}
	return t, nil
}

func (d imageDoor) list(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	f, err := filters(r)
	if err != nil {
		return err
	}
	accept, err := imageFilter(d.s, f)
	if err != nil {
		return err
	}
	containers, err := d.containers.List(r.Context(), enginecontainer.ListOptions{All: true})
	if err != nil {
		return err
	}
	users := map[string]int64{}
	for _, c := range containers {
		users[c.ImageID]++
	}
	all := d.s.List()
	shared := sharing(all)
	list := []imagetypes.Summary{}
	for _, img := range all {
		if !accept(img) {
			continue
		}
		s := summary(img)
		s.Containers = users[s.ID]
		if f.Has("reference") {
			// Only the names that were asked for.
			s.RepoTags = matching(s.RepoTags, f["reference"])
			s.RepoDigests = matching(s.RepoDigests, f["reference"])
		}
		if boolean(r, "shared-size") {
			s.SharedSize = shared.of(img)
		}
		if boolean(r, "manifests") {
			s.Manifests = manifests(img)
		}
		list = append(list, s)
	}
	return writeJSON(w, http.StatusOK, list)
}

// summary is an image's line in a list; containers and shared size are not computed (-1).
func summary(img *image.Image) imagetypes.Summary {
	target := img.Target
	s := imagetypes.Summary{
		ID: img.ID.String(), Created: unixTime(img.Created), Labels: img.Config.Config.Labels,
		RepoTags: orEmpty(img.Names), RepoDigests: orEmpty(img.Digests),
		Size: img.Size, SharedSize: -1, Containers: -1,
	}
	if target.Digest != "" {
		s.Descriptor = &target
	}
	return s
}

func unixTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// manifests describes the manifest that is here.
func manifests(img *image.Image) []imagetypes.ManifestSummary {
	m := imagetypes.ManifestSummary{
		ID: img.Manifest.Digest.String(), Descriptor: img.Manifest, Available: true, Kind: imagetypes.ManifestKindImage,
		ImageData: &imagetypes.ImageProperties{Platform: imagePlatform(img), Containers: []string{}},
	}
	m.ImageData.Size.Unpacked = img.Size
	m.Size.Content = img.Manifest.Size
	for _, l := range img.Layers {
		m.Size.Content += l.BlobSize
	}
	m.Size.Total = m.Size.Content + img.Size
	return []imagetypes.ManifestSummary{m}
}

func imagePlatform(img *image.Image) ocispec.Platform {
	return img.Config.Platform
}

// layerUse counts in how many images a layer is.
type layerUse map[digest.Digest]int

func sharing(all []*image.Image) layerUse {
	u := layerUse{}
	for _, img := range all {
		for _, l := range img.Layers {
			u[l.DiffID]++
		}
	}
	return u
}

// of is the bytes of an image's layers that other images have too.
func (u layerUse) of(img *image.Image) (bytes int64) {
	for _, l := range img.Layers {
		if u[l.DiffID] > 1 {
			bytes += l.Size
		}
	}
	return bytes
}

// imageFilter makes the test of `docker images --filter`.
func imageFilter(s imageStore, f filter.Args) (func(*image.Image) bool, error) {
	if err := f.Only("dangling", "label", "label!", "before", "since", "reference", "until"); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	var before, since, until time.Time
	for _, ref := range f["before"] {
		img, err := s.Get(ref)
		if err != nil {
			return nil, err
		}
		if before.IsZero() || img.Created.Before(before) {
			before = img.Created
		}
	}
	for _, ref := range f["since"] {
		img, err := s.Get(ref)
		if err != nil {
			return nil, err
		}
		if img.Created.After(since) {
			since = img.Created
		}
	}
	for _, v := range f["until"] {
		if until, err = parseTime(v); err != nil {
			return nil, fault.Invalid("invalid filter 'until=%s': %w", v, err)
		}
	}
	for _, pattern := range f["reference"] {
		if _, err := reference.FamiliarMatch(pattern, reference.TrimNamed(anyName)); err != nil {
			return nil, fault.Invalid("invalid filter 'reference=%s': %w", pattern, err)
		}
	}
	return func(img *image.Image) bool {
		return (!f.Has("dangling") || dangling == (len(img.Names) == 0)) &&
			(before.IsZero() || img.Created.Before(before)) &&
			(since.IsZero() || img.Created.After(since)) &&
			(until.IsZero() || img.Created.Before(until)) &&
			f.Labels(img.Config.Config.Labels) &&
			f.Match("reference", func(pattern string) bool { return referenceMatches(img, pattern) })
	}, nil
}

var anyName = func() reference.Named {
	n, _ := reference.ParseNormalizedNamed("x")
	return n
}()

func referenceMatches(img *image.Image, pattern string) bool {
	return len(matching(slices.Concat(img.Names, img.Digests), []string{pattern})) > 0
}

// matching returns the names that one of the patterns fits, with or without their tag or digest.
func matching(names, patterns []string) []string {
	found := []string{}
	for _, name := range names {
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(patterns, func(pattern string) bool {
			whole, _ := reference.FamiliarMatch(pattern, ref)
			bare, _ := reference.FamiliarMatch(pattern, reference.TrimNamed(ref))
			return whole || bare
		}) {
			found = append(found, name)
		}
	}
	return found
}

func (d imageDoor) inspect(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	p, err := parsePlatform(r.FormValue("platform"))
	if err != nil {
		return err
	}
	if p != nil && boolean(r, "manifests") {
		return fault.Invalid("conflicting options: manifests and platform options cannot both be set")
	}
	img, err := getFor(d.s, r.PathValue("name"), p)
	if err != nil {
		return err
	}
	res := inspectImage(img)
	if boolean(r, "manifests") {
		res.Manifests = manifests(img)
	}
	if lower, err := d.s.Lower(img); err == nil {
		res.GraphDriver.Data["LowerDir"] = strings.Join(lower, ":")
	}
	return writeJSON(w, http.StatusOK, res)
}

// getFor finds an image and refuses one of another platform than p.
func getFor(s imageStore, ref string, p *ocispec.Platform) (*image.Image, error) {
	img, err := s.Get(ref)
	if err != nil {
		return nil, err
	}
	have := imagePlatform(img)
	if p != nil && (p.OS != have.OS || p.Architecture != have.Architecture || p.Variant != "" && p.Variant != have.Variant) {
		return nil, fault.NotFound("image with reference %s was found but its platform (%s/%s) does not match the specified platform (%s/%s)", ref, have.OS, have.Architecture, p.OS, p.Architecture)
	}
	return img, nil
}

func inspectImage(img *image.Image) imagetypes.InspectResponse {
	cfg := img.Config
	target := img.Target
	res := imagetypes.InspectResponse{
		ID: img.ID.String(), RepoTags: orEmpty(img.Names), RepoDigests: orEmpty(img.Digests),
		Author: cfg.Author, Config: &cfg.Config,
		Architecture: cfg.Architecture, Variant: cfg.Variant, Os: cfg.OS, OsVersion: cfg.OSVersion,
		Size: img.Size, GraphDriver: &storage.DriverData{Name: "overlay2", Data: map[string]string{}},
		RootFS:   imagetypes.RootFS{Type: "layers", Layers: []string{}},
		Metadata: imagetypes.Metadata{LastTagTime: img.Tagged},
	}
	if !img.Created.IsZero() {
		res.Created = img.Created.Format(time.RFC3339Nano)
	}
	if n := len(cfg.History); n > 0 {
		res.Comment = cfg.History[n-1].Comment
	}
	for _, l := range img.Layers {
		res.RootFS.Layers = append(res.RootFS.Layers, l.DiffID.String())
	}
	if target.Digest != "" {
		res.Descriptor = &target
	}
	return res
}

// history lists an image's steps, newest first. Only the newest has an id: the others are no images here.
func (d imageDoor) history(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	p, err := parsePlatform(r.FormValue("platform"))
	if err != nil {
		return err
	}
	img, err := getFor(d.s, r.PathValue("name"), p)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, historyOf(img))
}

func historyOf(img *image.Image) []imagetypes.HistoryResponseItem {
	list := []imagetypes.HistoryResponseItem{}
	layers := img.Layers
	for _, h := range img.Config.History {
		item := imagetypes.HistoryResponseItem{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			item.Created = unixTime(*h.Created)
		}
		if !h.EmptyLayer && len(layers) > 0 {
			item.Size = layers[0].Size
			layers = layers[1:]
		}
		list = append(list, item)
	}
	// Layers that the history doesn't tell of, as images of other tools have.
	for _, l := range layers {
		list = append(list, imagetypes.HistoryResponseItem{ID: "<missing>", Created: unixTime(img.Created), Size: l.Size})
	}
	slices.Reverse(list)
	if len(list) > 0 {
		list[0].ID, list[0].Tags = img.ID.String(), img.Names
	}
	return list
}

func (d imageDoor) tag(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	name, err := parseTag(r.FormValue("repo"), r.FormValue("tag"))
	if err != nil {
		return err
	}
	if name == nil {
		return fault.Invalid("invalid reference format: repo is empty")
	}
	if err := d.s.Tag(r.PathValue("name"), name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (d imageDoor) remove(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	for _, s := range r.Form["platforms"] {
		p, err := parsePlatform(s)
		if err != nil {
			return err
		}
		if _, err := getFor(d.s, r.PathValue("name"), p); err != nil {
			return err
		}
	}
	removed, err := d.s.Remove(r.PathValue("name"), boolean(r, "force"), !boolean(r, "noprune"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, deleted(removed))
}

func deleted(removed []image.Removed) []imagetypes.DeleteResponse {
	list := []imagetypes.DeleteResponse{}
	for _, x := range removed {
		list = append(list, imagetypes.DeleteResponse{Deleted: x.Deleted, Untagged: x.Untagged})
	}
	return list
}

func (d imageDoor) prune(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	f, err := filters(r)
	if err != nil {
		return err
	}
	removed, bytes, err := d.s.Prune(f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, imagetypes.PruneReport{ImagesDeleted: deleted(removed), SpaceReclaimed: uint64(bytes)})
}

func searchImages(http.ResponseWriter, *http.Request) error {
	return fault.Unsupported("searching registries is not supported by this engine")
}
