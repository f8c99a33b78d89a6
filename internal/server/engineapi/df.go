package engineapi

import (
	"net/http"
	"slices"

	buildtypes "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
	"tare/internal/image"
)

// diskDoor adds up what the data root holds.
type diskDoor struct {
	containers containerLister
	images     imageStore
	volumes    interface {
		Usage() ([]*volume.Volume, error)
	}
	cache interface {
		Cache() ([]buildtypes.CacheRecord, error)
	}
}

func (d diskDoor) usage(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	want := func(o system.DiskUsageObject) bool {
		return len(r.Form["type"]) == 0 || slices.Contains(r.Form["type"], string(o))
	}
	for _, t := range r.Form["type"] {
		switch system.DiskUsageObject(t) {
		case system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject:
		default:
			return fault.Invalid("unknown object type: %s", t)
		}
	}
	list, err := d.containers.List(r.Context(), enginecontainer.ListOptions{All: true, Size: true, Disk: true})
	if err != nil {
		return err
	}
	var u system.DiskUsage
	if want(system.ContainerObject) {
		u.ContainerUsage = containerUsage(list)
	}
	if want(system.ImageObject) {
		disk, err := d.images.Disk()
		if err != nil {
			return err
		}
		u.ImageUsage = imageUsage(d.images.List(), disk, list)
	}
	if want(system.VolumeObject) {
		if u.VolumeUsage, err = volumeUsage(d.volumes, list); err != nil {
			return err
		}
	}
	if want(system.BuildCacheObject) {
		if u.BuildCacheUsage, err = cacheUsage(d.cache); err != nil {
			return err
		}
	}
	if !boolean(r, "verbose") {
		hideItems(&u)
	}
	return writeJSON(w, http.StatusOK, u)
}

func hideItems(u *system.DiskUsage) {
	if u.ContainerUsage != nil {
		u.ContainerUsage.Items = nil
	}
	if u.ImageUsage != nil {
		u.ImageUsage.Items = nil
	}
	if u.VolumeUsage != nil {
		u.VolumeUsage.Items = nil
	}
	if u.BuildCacheUsage != nil {
		u.BuildCacheUsage.Items = nil
	}
}

// alive tells whether what a container holds can't be won back by prune.
func alive(c container.Summary) bool {
	return c.State == container.StateRunning || c.State == container.StatePaused || c.State == container.StateRestarting
}

func containerUsage(list []container.Summary) *container.DiskUsage {
	u := &container.DiskUsage{TotalCount: int64(len(list)), Items: orEmpty(list)}
	for _, c := range list {
		u.TotalSize += c.SizeRw
		if alive(c) {
			u.ActiveCount++
		} else {
			u.Reclaimable += c.SizeRw
		}
	}
	return u
}

// imageUsage counts the layers as they lie on the disk, each once, however many images share it. An image is active if a container, running or
// not, has it. What only the build cache holds is the cache's; manifests, some kilobytes each, are nobody's.
func imageUsage(images []*imageRecord, disk image.Disk, list []container.Summary) *imagetypes.DiskUsage {
	users := map[string]int64{}
	for _, c := range list {
		users[c.ImageID]++
	}
	shared := sharing(images)
	u := &imagetypes.DiskUsage{TotalCount: int64(len(images)), Items: []imagetypes.Summary{}}
	kept, counted := map[digest.Digest]int64{}, map[digest.Digest]bool{}
	for _, img := range images {
		n := users[img.ID.String()]
		if n > 0 {
			u.ActiveCount++
			for _, l := range img.Layers {
				kept[l.DiffID] = disk.Layers[l.DiffID]
			}
		}
		s := summary(img)
		s.Containers, s.Size, s.SharedSize = n, 0, 0
		for _, l := range img.Layers { // as they lie on the disk, so that clients' own sums agree with ours
			s.Size += disk.Layers[l.DiffID]
			if !counted[l.DiffID] {
				counted[l.DiffID] = true
				u.TotalSize += disk.Layers[l.DiffID]
			}
			if shared[l.DiffID] > 1 {
				s.SharedSize += disk.Layers[l.DiffID]
			}
		}
		u.Items = append(u.Items, s)
	}
	u.Reclaimable = u.TotalSize
	for _, n := range kept {
		u.Reclaimable -= n
	}
	return u
}

func volumeUsage(s interface {
	Usage() ([]*volume.Volume, error)
}, list []container.Summary) (*volume.DiskUsage, error) {
	volumes, err := s.Usage()
	if err != nil {
		return nil, err
	}
	users := map[string]int64{}
	for _, c := range list {
		for _, m := range c.Mounts {
			if m.Name != "" {
				users[m.Name]++
			}
		}
	}
	u := &volume.DiskUsage{TotalCount: int64(len(volumes)), Items: []volume.Volume{}}
	for _, v := range volumes {
		item := *v
		item.UsageData = &volume.UsageData{Size: v.UsageData.Size, RefCount: users[v.Name]}
		u.Items = append(u.Items, item)
		u.TotalSize += item.UsageData.Size
		if users[v.Name] > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += item.UsageData.Size
		}
	}
	return u, nil
}

func cacheUsage(s interface {
	Cache() ([]buildtypes.CacheRecord, error)
}) (*buildtypes.DiskUsage, error) {
	records, err := s.Cache()
	if err != nil {
		return nil, err
	}
	u := &buildtypes.DiskUsage{TotalCount: int64(len(records)), Items: orEmpty(records)}
	for _, c := range records {
		if !c.Shared {
			u.TotalSize += c.Size
		}
		if c.InUse {
			u.ActiveCount++
		} else if !c.Shared {
			u.Reclaimable += c.Size
		}
	}
	return u, nil
}
