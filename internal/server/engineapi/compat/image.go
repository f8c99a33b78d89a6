package compat

import "encoding/json"

// imageNulls names what an image doesn't have.
func imageNulls(i *object) error {
	for _, key := range []string{"Parent", "Comment", "DockerVersion", "Author"} {
		i.add(key, "")
	}
	cfg := i.object("Config")
	for _, key := range []string{"Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"} {
		cfg.add(key, nil)
	}
	cfg.add("User", "")
	cfg.add("WorkingDir", "")
	i.set("Config", cfg)
	return nil
}

// imageContainerFields are a container's fields that an image's config has shown, always empty.
func imageContainerFields(i *object) error {
	cfg := i.object("Config")
	addContainerFields(&cfg)
	i.set("Config", cfg)
	return nil
}

func addContainerFields(cfg *object) {
	for _, key := range []string{"Hostname", "Domainname", "Image"} {
		cfg.add(key, "")
	}
	for _, key := range []string{"AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"} {
		cfg.add(key, false)
	}
}

// imageContainerConfig is the container that an image was made from; no image has one.
func imageContainerConfig(i *object) error {
	i.add("Container", "")
	cfg := object{}
	addContainerFields(&cfg)
	for _, key := range []string{"Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels"} {
		cfg.add(key, nil)
	}
	cfg.add("User", "")
	cfg.add("WorkingDir", "")
	i.add("ContainerConfig", cfg)
	return nil
}

func imageVirtualSize(i *object) error {
	if size := i.get("Size"); size != nil {
		i.add("VirtualSize", size)
	}
	return nil
}

func imageUncounted(i *object) error {
	i.set("Containers", -1)
	return nil
}

// usageLegacy adds the lists that were once the whole answer.
func usageLegacy(u *object) error {
	old := object{}
	list := func(key, from string) {
		items := json.RawMessage("null")
		if usage := u.object(from); usage != nil {
			items = json.RawMessage("[]")
			if v := usage.get("Items"); v != nil {
				items = v
			}
		}
		old.set(key, items)
	}
	size := u.object("ImageUsage").get("TotalSize")
	if size == nil {
		size = json.RawMessage("0")
	}
	old.set("LayersSize", size)
	list("Images", "ImageUsage")
	list("Containers", "ContainerUsage")
	list("Volumes", "VolumeUsage")
	list("BuildCache", "BuildCacheUsage")
	*u = append(old, *u...)
	return nil
}

func usageOnlyLegacy(u *object) error {
	for _, key := range []string{"ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage"} {
		u.remove(key)
	}
	return nil
}

func usageVirtualSize(u *object) error {
	images, err := eachOf(u.get("Images"), imageVirtualSize)
	if err != nil {
		return err
	}
	u.set("Images", images)
	return nil
}

func usageBuilderSize(u *object) error {
	var cache []struct {
		Size   int64
		Shared bool
	}
	json.Unmarshal(u.get("BuildCache"), &cache)
	var sum int64
	for _, c := range cache {
		if !c.Shared {
			sum += c.Size
		}
	}
	u.set("BuilderSize", sum)
	return nil
}
