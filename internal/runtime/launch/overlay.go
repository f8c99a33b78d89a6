package launch

import (
	"strings"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/lower"
	"tare/internal/runtime/plan"
)

// overlay mounts the root from layers.
func (s *stage) overlay(st *plan.Step) error {
	if st.Source == "" && len(st.List) == 1 {
		// The kernel wants two layers; one alone needs no overlay.
		if err := s.setRoot(st.List[0], st.Path, 0); err != nil {
			return err
		}
		return unix.MountSetattr(s.root, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return because(err, "fsopen")
	}
	defer unix.Close(fs)
	for _, dir := range st.List {
		if err := unix.FsconfigSetString(fs, "lowerdir+", dir); err != nil {
			return because(err, kernelSays(fs, dir))
		}
	}
	set := lower.OverlayFixed[:]
	if st.Source != "" {
		set = append(set, [2]string{"upperdir", st.Source}, [2]string{"workdir", st.Type})
	}
	for _, kv := range set {
		if err := unix.FsconfigSetString(fs, kv[0], kv[1]); err != nil {
			return because(err, kernelSays(fs, kv[1]))
		}
	}
	if st.Data != "" {
		if err := unix.FsconfigSetFlag(fs, st.Data); err != nil {
			return because(err, st.Data)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		says := kernelSays(fs, "overlay")
		// Before Linux 6.5 options are strings that only this call looks at, and lowerdir+ is none.
		if err == unix.EINVAL && s.overlayByData(st) == nil {
			return nil
		}
		return because(err, says)
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return because(err, "fsmount")
	}
	return s.placeRoot(tree, st.Path)
}

// kernelSays is the kernel's own explanation, if it has one.
func kernelSays(fs int, otherwise string) string {
	buf := make([]byte, 512)
	n, err := unix.Read(fs, buf)
	if err != nil || n < 3 {
		return otherwise
	}
	return strings.TrimSpace(string(buf[2:n]))
}

// overlayByData uses mount(2), whose options must fit a page: the layers are named relative to the folder they share.
func (s *stage) overlayByData(st *plan.Step) error {
	base := st.List[0]
	for _, dir := range append([]string{st.Source, st.Type}, st.List[1:]...) {
		for dir != "" && base != "/" && dir != base && !strings.HasPrefix(dir, base+"/") {
			base, _ = split(base)
		}
	}
	if base == st.List[0] {
		base, _ = split(base)
	}
	name := func(dir string) string {
		dir = strings.TrimPrefix(strings.TrimPrefix(dir, base), "/")
		return strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(dir)
	}
	var data strings.Builder
	for i, dir := range st.List {
		if i == 0 {
			data.WriteString("lowerdir=")
		} else {
			data.WriteByte(':')
		}
		data.WriteString(name(dir))
	}
	if st.Source != "" {
		data.WriteString(",upperdir=" + name(st.Source) + ",workdir=" + name(st.Type))
	}
	for _, kv := range lower.OverlayFixed {
		data.WriteString("," + kv[0] + "=" + kv[1])
	}
	if st.Data != "" {
		data.WriteString("," + st.Data)
	}
	if data.Len() >= 4096 {
		return &failure{errno: unix.E2BIG, detail: "this kernel takes fewer layers (Linux 6.5 takes 500)"}
	}
	if err := unix.Chdir(base); err != nil {
		return err
	}
	if err := unshareParent(st.Path); err != nil {
		return err
	}
	if err := unix.Mount("overlay", st.Path, "overlay", 0, data.String()); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	var err error
	s.root, err = unix.Open(st.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err
}
