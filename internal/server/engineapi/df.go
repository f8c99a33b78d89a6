package engineapi

import (
	"context"
	"net/http"
	"slices"

	buildtypes "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
	enginecontainer "tare/internal/engine/container"
)

// diskDoor adds up what the data root holds.
type diskDoor struct {
	containers containerLister
	images     imageStore
	volumes    interface {
		List(f filter.Args) ([]*volume.Volume, error)
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
	list, err := d.containers.List(r.Context(), enginecontainer.ListOptions{All: true, Size: true})
	if err != nil {
		return err
	}
	var u system.DiskUsage
	if want(system.ContainerObject) {
		u.ContainerUsage = containerUsage(list)
	}
	if want(system.ImageObject) {
		u.ImageUsage = imageUsage(d.images.List(), list)
	}
	if want(system.VolumeObject) {
		if u.VolumeUsage, err = volumeUsage(r.Context(), d.volumes, list); err != nil {
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

// imageUsage counts a layer once, however many images share it. An image is active if a container, running or not, has it.
func imageUsage(images []*imageRecord, list []container.Summary) *imagetypes.DiskUsage {
	users := map[string]int64{}
	for _, c := range list {
		users[c.ImageID]++
	}
	shared := sharing(images)
	sizes := map[string]int64{}
	kept := map[string]int64{}
	u := &imagetypes.DiskUsage{TotalCount: int64(len(images)), Items: []imagetypes.Summary{}}
	for _, img := range images {
		n := users[img.ID.String()]
		if n > 0 {
			u.ActiveCount++
		}
		for _, l := range img.Layers {
			sizes[l.DiffID.String()] = l.Size
			if n > 0 {
				kept[l.DiffID.String()] = l.Size
			}
		}
		s := summary(img)
		s.Containers, s.SharedSize = n, shared.of(img)
		u.Items = append(u.Items, s)
	}
	u.TotalSize = total(sizes)
	u.Reclaimable = u.TotalSize - total(kept)
	return u
}

func total(sizes map[string]int64) (sum int64) {
	for _, n := range sizes {
		sum += n
	}
	return sum
}

func volumeUsage(ctx context.Context, s interface {
	List(f filter.Args) ([]*volume.Volume, error)
}, list []container.Summary) (*volume.DiskUsage, error) {
	volumes, err := s.List(nil)
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
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		item := *v
		size := int64(-1)
		if v.UsageData != nil {
			size = v.UsageData.Size
		} else if n, err := treeSize(v.Mountpoint); err == nil {
			size = n
		}
		item.UsageData = &volume.UsageData{Size: size, RefCount: users[v.Name]}
		u.Items = append(u.Items, item)
		u.TotalSize += max(size, 0)
		if users[v.Name] > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += max(size, 0)
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
