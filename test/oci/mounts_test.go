package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountLine is the line of /proc/self/mountinfo for a mount point, split; the last one where there are more.
func mountLine(c *check, info, point string) (options, super, optional string, line string) {
	for l := range strings.Lines(info) {
		f := strings.Fields(l)
		if len(f) > 9 && f[4] == point {
			dash := slices.Index(f, "-")
			options, optional, super, line = f[5], strings.Join(f[6:dash], " "), f[len(f)-1], l
		}
	}
	if line == "" {
		c.failf("%s is no mount: %s", point, info)
	}
	return
}

func info(c *check, edits ...edit) string { return c.sh("cat /proc/self/mountinfo", edits...) }

func hasOption(c *check, list, option string, want bool) {
	if slices.Contains(strings.Split(list, ","), option) != want {
		c.failf("option %s in %q: want %v", option, list, want)
	}
}

// root: the root file system, its propagation, masked and read-only paths.
func root() []clause {
	readonly := func(paths ...string) edit { return onLinux(func(l *specs.Linux) { l.ReadonlyPaths = paths }) }
	masked := func(paths ...string) edit { return onLinux(func(l *specs.Linux) { l.MaskedPaths = paths }) }
	return []clause{
		{"root/is-the-bundles", "config.md, root.path", func(c *check) { c.contains("ls", c.sh("ls /bin"), "busybox") }},
		{"root/path-may-be-absolute", "config.md, root.path", func(c *check) {
			ct := c.prepare(script("ls /bin"))
			s := defaultSpec()
			s.Process.Args, s.Root.Path, s.Linux.CgroupsPath = []string{"ls", "/bin"}, ct.rootfs(""), ct.group
			ct.write(s)
			c.contains("ls", ct.run(), "busybox")
		}},
		{"root/path-must-exist", "config.md, root.path", func(c *check) {
			c.refused(func(s *specs.Spec) { s.Root.Path = "nowhere" })
		}},
		{"root/readonly", "config.md, root.readonly", func(c *check) {
			c.contains("touch", c.sh("touch /x 2>&1; true", func(s *specs.Spec) { s.Root.Readonly = true }), "Read-only")
		}},
		{"root/writable", "config.md, root.readonly", func(c *check) { c.equal("touch", c.sh("touch /x && echo made"), "made") }},
		{"root/readonly-leaves-mounts-alone", "config.md, root.readonly", func(c *check) {
			c.equal("touch", c.sh("touch /dev/shm/x && echo made", func(s *specs.Spec) { s.Root.Readonly = true }), "made")
		}},
		{"root/readonly-does-not-change-the-host", "config.md, root.readonly", func(c *check) {
			ct := c.prepare(func(s *specs.Spec) { s.Root.Readonly = true })
			ct.run()
			c.must(os.WriteFile(ct.rootfs("x"), nil, 0o600))
		}},
		{"root/nothing-of-the-host-is-mounted", "runc, run.bats", func(c *check) {
			out := info(c)
			if strings.Contains(out, c.dir+" ") || strings.Contains(out, " /etc/hostname ") {
				c.failf("%s", out)
			}
		}},
		{"root/no-mount-stays-on-the-host", "runtime.md, Delete", func(c *check) {
			ct := c.running()
			ct.end()
			if strings.Contains(read(c, "/proc/self/mountinfo"), ct.bundle) {
				c.failf("a mount stays")
			}
		}},
		{"root/propagation-private", "config-linux.md, Rootfs Mount Propagation", func(c *check) {
			_, _, optional, _ := mountLine(c, info(c, onLinux(func(l *specs.Linux) { l.RootfsPropagation = "private" })), "/")
			c.equal("propagation", optional, "")
		}},
		{"root/propagation-shared", "config-linux.md, Rootfs Mount Propagation", func(c *check) {
			_, _, optional, _ := mountLine(c, info(c, onLinux(func(l *specs.Linux) { l.RootfsPropagation = "shared" })), "/")
			c.contains("propagation", optional, "shared:")
		}},
		{"root/propagation-unbindable", "config-linux.md, Rootfs Mount Propagation", func(c *check) {
			_, _, optional, _ := mountLine(c, info(c, onLinux(func(l *specs.Linux) { l.RootfsPropagation = "unbindable" })), "/")
			c.equal("propagation", optional, "unbindable")
		}},
		{"root/propagation-unknown", "config-linux.md, Rootfs Mount Propagation", func(c *check) {
			c.refused(onLinux(func(l *specs.Linux) { l.RootfsPropagation = "nonsense" }))
		}},
		{"root/masked-file", "config-linux.md, Masked Paths", func(c *check) {
			ct := c.prepare(script("cat /secret; echo end"), masked("/secret"))
			c.must(os.WriteFile(ct.rootfs("secret"), []byte("secret"), 0o644))
			c.equal("output", ct.run(), "end")
		}},
		{"root/masked-directory", "config-linux.md, Masked Paths", func(c *check) {
			ct := c.prepare(script("ls /secrets; touch /secrets/x 2>/dev/null || echo end"), masked("/secrets"))
			c.must(os.Mkdir(ct.rootfs("secrets"), 0o755))
			c.must(os.WriteFile(ct.rootfs("secrets/a"), nil, 0o644))
			c.equal("output", ct.run(), "end")
		}},
		{"root/masked-path-that-is-missing", "config-linux.md, Masked Paths", func(c *check) { c.sh("true", masked("/no/such/path")) }},
		{"root/masked-proc-file", "runc, mask.bats", func(c *check) { c.equal("length", c.sh("cat /proc/kallsyms | head -n1", masked("/proc/kallsyms")), "") }},
		{"root/masked-link-masks-what-it-points-to", "runc, mask.bats", func(c *check) {
			ct := c.prepare(script("cat /link; cat /secret; echo end"), masked("/link"))
			c.must(os.WriteFile(ct.rootfs("secret"), []byte("secret"), 0o644))
			c.must(os.Symlink("/secret", ct.rootfs("link")))
			if r := ct.tryRun(); r.code == 0 { // or it is refused
				c.equal("output", r.out, "end\n")
			}
		}},
		{"root/masked-paths-can-not-be-unmounted", "runc, mask.bats", func(c *check) {
			ct := c.prepare(script("busybox umount /secret 2>/dev/null; cat /secret; echo end"), masked("/secret"))
			c.must(os.WriteFile(ct.rootfs("secret"), []byte("secret"), 0o644))
			c.equal("output", ct.run(), "end")
		}},
		{"root/readonly-path-of-a-file", "config-linux.md, Readonly Paths", func(c *check) {
			ct := c.prepare(script("(echo x > /file) 2>/dev/null || cat /file"), readonly("/file"))
			c.must(os.WriteFile(ct.rootfs("file"), []byte("old"), 0o666))
			c.equal("output", ct.run(), "old")
		}},
		{"root/readonly-path-of-a-directory", "config-linux.md, Readonly Paths", func(c *check) {
			c.equal("output", c.sh("touch /tmp/x 2>/dev/null || echo refused", readonly("/tmp")), "refused")
		}},
		{"root/readonly-path-that-is-missing", "config-linux.md, Readonly Paths", func(c *check) { c.sh("true", readonly("/no/such/path")) }},
		{"root/readonly-path-of-proc", "config-linux.md, Readonly Paths", func(c *check) {
			c.equal("output", c.sh("(echo core > /proc/sys/kernel/core_pattern) 2>/dev/null || echo refused", readonly("/proc/sys")), "refused")
		}},
		{"root/masked-and-readonly-paths-of-exec", "runc, mask.bats", func(c *check) {
			ct := c.prepare(args("sleep", "1000"), masked("/secret"), readonly("/tmp"))
			c.must(os.WriteFile(ct.rootfs("secret"), []byte("secret"), 0o644))
			if r := ct.tryRun("-d"); r.code != 0 {
				c.failf("%s", r.all())
			}
			c.equal("output", ct.exec("sh", "-c", "cat /secret; touch /tmp/x 2>/dev/null || echo refused"), "refused")
		}},
	}
}

// mounts: config.json's mounts, each option.
func mounts() []clause {
	tmpfs := func(options ...string) edit {
		return mounted(specs.Mount{Destination: "/mnt/m", Type: "tmpfs", Source: "tmpfs", Options: options})
	}
	// bind mounts a folder of the host with a file in it at /mnt/m.
	bind := func(c *check, options ...string) (edit, string) {
		dir := filepath.Join(c.dir, "source")
		c.must(os.MkdirAll(dir, 0o755))
		c.must(os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644))
		return mounted(specs.Mount{Destination: "/mnt/m", Type: "bind", Source: dir, Options: options}), dir
	}
	option := func(name, option string, want bool, given ...string) clause {
		return clause{"mounts/tmpfs-" + name, "config.md, mounts; " + strings.Join(given, ","), func(c *check) {
			o, super, _, _ := mountLine(c, info(c, tmpfs(given...)), "/mnt/m")
			hasOption(c, o+","+super, option, want)
		}}
	}
	bindOption := func(name, option string, want bool, given ...string) clause {
		return clause{"mounts/bind-" + name, "config.md, mounts; " + strings.Join(given, ","), func(c *check) {
			b, _ := bind(c, append([]string{"bind"}, given...)...)
			o, _, _, _ := mountLine(c, info(c, b), "/mnt/m")
			hasOption(c, o, option, want)
		}}
	}
	recursive := func(name string, below, top bool, given ...string) clause {
		return clause{"mounts/bind-" + name, "config.md, mounts; runc, mounts_recursive.bats", func(c *check) {
			word := given[0]
			if word != "ro" {
				word = word[1:]
			}
			b, dir := bind(c, append([]string{"rbind"}, given...)...)
			c.must(os.Mkdir(filepath.Join(dir, "below"), 0o755))
			mountHere(c, filepath.Join(dir, "below"))
			out := info(c, b)
			o, _, _, _ := mountLine(c, out, "/mnt/m")
			hasOption(c, o, word, top)
			o, _, _, _ = mountLine(c, out, "/mnt/m/below")
			hasOption(c, o, word, below)
		}}
	}
	list := []clause{
		{"mounts/proc", "config-linux.md, Default Filesystems", func(c *check) {
			_, _, _, line := mountLine(c, info(c), "/proc")
			c.contains("proc", line, "- proc proc")
		}},
		{"mounts/sysfs", "config-linux.md, Default Filesystems", func(c *check) {
			o, _, _, line := mountLine(c, info(c), "/sys")
			c.contains("sysfs", line, "- sysfs sysfs")
			hasOption(c, o, "ro", true)
		}},
		{"mounts/devpts", "config-linux.md, Default Filesystems", func(c *check) {
			_, super, _, line := mountLine(c, info(c), "/dev/pts")
			c.contains("devpts", line, "- devpts devpts")
			hasOption(c, super, "ptmxmode=666", true)
			hasOption(c, super, "mode=620", true)
		}},
		{"mounts/shm", "config-linux.md, Default Filesystems", func(c *check) {
			_, super, _, _ := mountLine(c, info(c), "/dev/shm")
			hasOption(c, super, "size=65536k", true)
		}},
		{"mounts/mqueue", "config.md, mounts", func(c *check) {
			_, _, _, line := mountLine(c, info(c), "/dev/mqueue")
			c.contains("mqueue", line, "- mqueue mqueue")
		}},
		{"mounts/order", "config.md, mounts (in the listed order)", func(c *check) {
			out := c.sh("cat /mnt/m/file; cat /proc/self/mountinfo", func(s *specs.Spec) {
				b, _ := bind(c, "bind")
				mounted(specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs"})(s)
				b(s)
			})
			c.contains("file", out, "content")
		}},
		{"mounts/later-hides-earlier", "config.md, mounts (in the listed order)", func(c *check) {
			b, _ := bind(c, "bind")
			c.equal("ls", c.sh("ls /mnt/m", b, tmpfs()), "")
		}},
		{"mounts/destination-is-made", "config.md, mounts.destination", func(c *check) {
			c.contains("mounts", info(c, mounted(specs.Mount{Destination: "/deep/below/here", Type: "tmpfs", Source: "tmpfs"})), " /deep/below/here ")
		}},
		{"mounts/destination-of-a-file-is-made", "config.md, mounts.destination", func(c *check) {
			_, dir := bind(c)
			c.equal("file", c.sh("cat /deep/file", mounted(specs.Mount{Destination: "/deep/file", Type: "bind", Source: filepath.Join(dir, "file"), Options: []string{"bind"}})), "content")
		}},
		{"mounts/destination-through-a-link-stays-inside", "runc, mounts.bats", func(c *check) {
			ct := c.prepare(script("cat /proc/self/mountinfo"), mounted(specs.Mount{Destination: "/link/m", Type: "tmpfs", Source: "tmpfs"}))
			c.must(os.Symlink("/../../../../mnt", ct.rootfs("link")))
			c.contains("mounts", ct.run(), " /mnt/m ")
		}},
		{"mounts/relative-destination", "config.md, mounts.destination; runc, mounts.bats", func(c *check) {
			c.contains("mounts", info(c, mounted(specs.Mount{Destination: "mnt/rel", Type: "tmpfs", Source: "tmpfs"})), " /mnt/rel ")
		}},
		{"mounts/bind-relative-source", "config.md, mounts.source", func(c *check) {
			ct := c.prepare(args("cat", "/mnt/m"), mounted(specs.Mount{Destination: "/mnt/m", Type: "bind", Source: "beside", Options: []string{"bind"}}))
			c.must(os.WriteFile(filepath.Join(ct.bundle, "beside"), []byte("beside"), 0o644))
			c.equal("file", ct.run(), "beside")
		}},
		{"mounts/bind-missing-source", "config.md, mounts.source", func(c *check) {
			c.refused(mounted(specs.Mount{Destination: "/mnt/m", Type: "bind", Source: "/no/such/source", Options: []string{"bind"}}))
		}},
		{"mounts/bind-without-type", "config.md, mounts.type", func(c *check) {
			_, dir := bind(c)
			c.equal("file", c.sh("cat /mnt/m/file", mounted(specs.Mount{Destination: "/mnt/m", Source: dir, Options: []string{"rbind"}})), "content")
		}},
		{"mounts/bind-with-type-none", "config.md, mounts.type", func(c *check) {
			_, dir := bind(c)
			c.equal("file", c.sh("cat /mnt/m/file", mounted(specs.Mount{Destination: "/mnt/m", Type: "none", Source: dir, Options: []string{"rbind"}})), "content")
		}},
		{"mounts/bind-is-written-through", "config.md, mounts", func(c *check) {
			b, dir := bind(c, "bind")
			c.sh("echo new > /mnt/m/new", b)
			c.equal("file", read(c, filepath.Join(dir, "new")), "new")
		}},
		{"mounts/bind-shows-mounts-below-only-with-rbind", "config.md, mounts", func(c *check) {
			b, dir := bind(c, "bind")
			rb, _ := bind(c, "rbind")
			c.must(os.Mkdir(filepath.Join(dir, "below"), 0o755))
			mountHere(c, filepath.Join(dir, "below"))
			if strings.Contains(info(c, b), "/mnt/m/below") {
				c.failf("bind brings mounts below along")
			}
			c.contains("mounts", info(c, rb), "/mnt/m/below")
		}},
		{"mounts/bind-ro-does-not-change-the-host", "config.md, mounts", func(c *check) {
			b, dir := bind(c, "bind", "ro")
			c.sh("true", b)
			c.must(os.WriteFile(filepath.Join(dir, "new"), nil, 0o644))
		}},
		{"mounts/unknown-option-fails", "config.md, mounts.options", func(c *check) { c.refused(tmpfs("nonsense-option")) }},
		{"mounts/unknown-type-fails", "config.md, mounts.type", func(c *check) {
			c.refused(mounted(specs.Mount{Destination: "/mnt/m", Type: "nonsensefs", Source: "x"}))
		}},
		{"mounts/no-destination-fails", "config.md, mounts.destination", func(c *check) {
			c.refused(mounted(specs.Mount{Type: "tmpfs", Source: "tmpfs"}))
		}},
		{"mounts/tmpfs-size-and-mode", "config.md, mounts.options", func(c *check) {
			out := c.sh("stat -c %a /mnt/m; cat /proc/self/mountinfo", tmpfs("size=1m", "mode=751"))
			c.equal("mode", strings.Fields(out)[0], "751")
			_, super, _, _ := mountLine(c, out, "/mnt/m")
			hasOption(c, super, "size=1024k", true)
		}},
		{"mounts/tmpfs-takes-the-mode-of-what-it-hides", "runc, mounts.bats", func(c *check) {
			ct := c.prepare(script("stat -c %a /mnt/m"), tmpfs())
			c.must(os.Mkdir(ct.rootfs("mnt/m"), 0o700))
			c.must(os.Chmod(ct.rootfs("mnt/m"), 0o711))
			c.equal("mode", ct.run(), "711")
		}},
		{"mounts/tmpcopyup", "runc, mounts.bats (tmpcopyup)", func(c *check) {
			ct := c.prepare(script("cat /data/a /data/sub/b; echo new > /data/a"), mounted(specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}}))
			c.must(os.MkdirAll(ct.rootfs("data/sub"), 0o755))
			c.must(os.WriteFile(ct.rootfs("data/a"), []byte("a\n"), 0o644))
			c.must(os.WriteFile(ct.rootfs("data/sub/b"), []byte("b\n"), 0o644))
			c.equal("files", ct.run(), "a\nb")
			c.equal("the root's file", read(c, ct.rootfs("data/a")), "a")
		}},
		{"mounts/cgroup", "config-linux.md, Default Filesystems; runc, cgroups.bats", func(c *check) {
			out := info(c, mounted(specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}}))
			at := "/sys/fs/cgroup"
			if !unifiedCgroup() {
				at += "/memory"
			}
			o, _, _, _ := mountLine(c, out, at)
			hasOption(c, o, "ro", true)
		}},
		{"mounts/propagation-rslave-receives", "config.md, mounts; runc, mounts_propagation.bats", func(c *check) {
			b, dir := bind(c, "rbind", "rslave")
			mountHere(c, dir) // a mount of its own, so that it can be shared
			c.must(unix.Mount("", dir, "", unix.MS_SHARED, ""))
			c.must(os.Mkdir(filepath.Join(dir, "later"), 0o755))
			ct := c.running(b)
			mountHere(c, filepath.Join(dir, "later"))
			c.contains("mounts", ct.exec("cat", "/proc/self/mountinfo"), "/mnt/m/later")
		}},
		{"mounts/propagation-rprivate-does-not", "config.md, mounts; runc, mounts_propagation.bats", func(c *check) {
			b, dir := bind(c, "rbind", "rprivate")
			mountHere(c, dir)
			c.must(unix.Mount("", dir, "", unix.MS_SHARED, ""))
			c.must(os.Mkdir(filepath.Join(dir, "later"), 0o755))
			ct := c.running(b)
			mountHere(c, filepath.Join(dir, "later"))
			if strings.Contains(ct.exec("cat", "/proc/self/mountinfo"), "/mnt/m/later") {
				c.failf("it came in")
			}
		}},
		{"mounts/propagation-rshared-sends", "config.md, mounts; runc, mounts_propagation.bats", func(c *check) {
			b, dir := bind(c, "rbind", "rshared")
			mountHere(c, dir)
			c.must(unix.Mount("", dir, "", unix.MS_SHARED, ""))
			c.must(os.Mkdir(filepath.Join(dir, "below"), 0o755))
			ct := c.running(b, capabilities("CAP_SYS_ADMIN"), onLinux(func(l *specs.Linux) { l.RootfsPropagation = "shared" }))
			ct.exec("mount", "-t", "tmpfs", "tmpfs", "/mnt/m/below")
			c.cleanup(func() { _ = unix.Unmount(filepath.Join(dir, "below"), unix.MNT_DETACH) })
			mountLine(c, read(c, "/proc/self/mountinfo"), filepath.Join(dir, "below"))
		}},
		{"mounts/idmapped-bind", "config.md, mounts.uidMappings; runc, idmap.bats", func(c *check) {
			b, dir := bind(c, "bind")
			c.must(os.Chown(filepath.Join(dir, "file"), 5, 6))
			out := c.sh("stat -c %u:%g /mnt/m/file", b, func(s *specs.Spec) {
				m := &s.Mounts[len(s.Mounts)-1]
				m.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 100}}
				m.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 2000, Size: 100}}
				m.Options = append(m.Options, "idmap")
			})
			c.equal("owner", out, "1005:2006")
		}},
		{"mounts/bind-over-a-file", "config.md, mounts", func(c *check) {
			_, dir := bind(c)
			c.equal("file", c.sh("cat /etc/passwd", mounted(specs.Mount{Destination: "/etc/passwd", Type: "bind", Source: filepath.Join(dir, "file"), Options: []string{"bind", "ro"}})), "content")
		}},
		{"mounts/bind-a-device", "runc, mounts.bats", func(c *check) {
			out := c.sh("head -c 3 /dev/nothing | wc -c", mounted(specs.Mount{Destination: "/dev/nothing", Type: "bind", Source: "/dev/zero", Options: []string{"bind"}}),
				onLinux(func(l *specs.Linux) { l.Resources.Devices = nil }), func(s *specs.Spec) { s.Process.Args[2] = "head -c 3 /dev/nothing | busybox wc -c" })
			c.equal("bytes", out, "3")
		}},
		{"mounts/bind-a-socket", "runc, mounts.bats", func(c *check) {
			out := c.sh("test -p /mnt/fifo && echo yes", func(s *specs.Spec) {
				fifo := filepath.Join(c.dir, "fifo")
				c.must(unix.Mkfifo(fifo, 0o600))
				mounted(specs.Mount{Destination: "/mnt/fifo", Type: "bind", Source: fifo, Options: []string{"bind"}})(s)
			})
			c.equal("fifo", out, "yes")
		}},
	}
	list = append(list,
		option("ro", "ro", true, "ro"),
		option("rw", "rw", true, "ro", "rw"),
		option("nosuid", "nosuid", true, "nosuid"),
		option("nodev", "nodev", true, "nodev"),
		option("noexec", "noexec", true, "noexec"),
		option("noatime", "noatime", true, "noatime"),
		option("nodiratime", "nodiratime", true, "nodiratime"),
		option("relatime", "relatime", true, "relatime"),
		option("strictatime", "relatime", false, "strictatime"),
		option("suid-undoes", "nosuid", false, "nosuid", "suid"),
		option("sync", "sync", true, "sync"),
		option("defaults", "rw", true, "defaults"),
		option("nosymfollow", "nosymfollow", true, "nosymfollow"),
		bindOption("ro", "ro", true, "ro"),
		bindOption("nosuid", "nosuid", true, "nosuid"),
		bindOption("nodev", "nodev", true, "nodev"),
		bindOption("noexec", "noexec", true, "noexec"),
		bindOption("noatime", "noatime", true, "noatime"),
		bindOption("rw", "rw", true, "rw"),
		recursive("ro-is-for-the-top-only", false, true, "ro"),
		recursive("rro-is-for-all", true, true, "rro"),
		recursive("rnosuid", true, true, "rnosuid"),
		recursive("rnodev", true, true, "rnodev"),
		recursive("rnoexec", true, true, "rnoexec"),
	)
	for _, kind := range []string{"private", "slave", "shared", "unbindable"} {
		list = append(list, clause{"mounts/bind-" + kind, "config.md, mounts; " + kind, func(c *check) {
			b, dir := bind(c, "bind", kind)
			if kind == "slave" { // a slave of something that is shared
				mountHere(c, dir)
				c.must(unix.Mount("", dir, "", unix.MS_SHARED, ""))
			}
			_, _, optional, _ := mountLine(c, info(c, b), "/mnt/m")
			c.equal("propagation", strings.TrimRight(optional, ":0123456789"), map[string]string{"private": "", "slave": "master", "shared": "shared", "unbindable": "unbindable"}[kind])
		}})
	}
	return list
}

// mountHere puts a tmpfs on a folder of the host, until the clause ends.
func mountHere(c *check, dir string) {
	c.must(unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	c.must(unix.Mount("", dir, "", unix.MS_PRIVATE, ""))
	c.cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// devices: nodes and the cgroup's rules for them.
func devices() []clause {
	dev := func(d specs.LinuxDevice, allow string) edit {
		return onLinux(func(l *specs.Linux) {
			l.Devices = append(l.Devices, d)
			if allow != "" {
				l.Resources.Devices = append(l.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: allow})
			}
		})
	}
	open := func(c *check, file string, edits ...edit) string {
		return strings.TrimPrefix(c.probe([]string{"openall", file}, edits...), file+" ")
	}
	list := []clause{
		{"devices/default-devices", "config-linux.md, Default Devices", func(c *check) {
			out := c.sh("stat -c '%n %F %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty")
			want := ""
			for _, d := range []string{"null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9", "tty 5:0"} {
				name, num, _ := strings.Cut(d, " ")
				want += fmt.Sprintf("/dev/%s character special file %s 666\n", name, num)
			}
			c.equal("devices", out+"\n", want)
		}},
		{"devices/default-devices-work", "config-linux.md, Default Devices", func(c *check) {
			c.equal("output", c.sh("head -c 4 /dev/zero | busybox wc -c; echo x > /dev/null && echo ok; head -c 4 /dev/urandom | busybox wc -c; (echo > /dev/full) 2>/dev/null || echo full"), "4\nok\n4\nfull")
		}},
		{"devices/ptmx", "config-linux.md, Default Devices", func(c *check) {
			c.contains("ptmx", c.sh("readlink -f /dev/ptmx; test -c /dev/ptmx && echo yes"), "yes")
		}},
		{"devices/dev-symlinks", "runtime-linux.md, Dev symbolic links", func(c *check) {
			c.equal("links", c.sh("for l in fd stdin stdout stderr; do readlink /dev/$l; done"), "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2")
		}},
		{"devices/no-console-without-a-terminal", "config-linux.md, Default Devices", func(c *check) {
			c.equal("console", c.sh("test -e /dev/console || echo none"), "none")
		}},
		{"devices/character-device", "config-linux.md, Devices", func(c *check) {
			d := specs.LinuxDevice{Path: "/dev/mine", Type: "c", Major: 1, Minor: 5, FileMode: ptr(os.FileMode(0o640)), UID: ptr(uint32(5)), GID: ptr(uint32(6))}
			c.equal("node", c.sh("stat -c '%F %t:%T %a %u:%g' /dev/mine", dev(d, "rwm")), "character special file 1:5 640 5:6")
		}},
		{"devices/block-device", "config-linux.md, Devices", func(c *check) {
			d := specs.LinuxDevice{Path: "/dev/disk", Type: "b", Major: 7, Minor: 200}
			c.contains("node", c.sh("stat -c '%F %t:%T' /dev/disk", dev(d, "rwm")), "block special file 7:c8")
		}},
		{"devices/fifo", "config-linux.md, Devices", func(c *check) {
			c.equal("node", c.sh("stat -c %F /dev/fifo", dev(specs.LinuxDevice{Path: "/dev/fifo", Type: "p"}, "")), "fifo")
		}},
		{"devices/outside-of-dev", "config-linux.md, Devices", func(c *check) {
			c.equal("node", c.sh("stat -c %t:%T /deep/node", dev(specs.LinuxDevice{Path: "/deep/node", Type: "c", Major: 1, Minor: 3}, "rwm")), "1:3")
		}},
		{"devices/unknown-type-fails", "config-linux.md, Devices", func(c *check) {
			c.refused(dev(specs.LinuxDevice{Path: "/dev/x", Type: "q", Major: 1, Minor: 3}, ""))
		}},
		{"devices/given-default-device-wins", "config-linux.md, Devices", func(c *check) {
			d := specs.LinuxDevice{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: ptr(os.FileMode(0o600))}
			c.equal("mode", c.sh("stat -c %a /dev/null", dev(d, "rwm")), "600")
		}},
		{"devices/rule-allows", "config-linux.md, Allowed Device list; runc, dev.bats", func(c *check) {
			d := specs.LinuxDevice{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11, FileMode: ptr(os.FileMode(0o666))}
			c.equal("open", open(c, "/dev/kmsg", dev(d, "rw"), capabilities("CAP_SYSLOG", "CAP_SYS_ADMIN")), "done")
		}},
		{"devices/rule-denies", "config-linux.md, Allowed Device list; runc, dev.bats", func(c *check) {
			d := specs.LinuxDevice{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11, FileMode: ptr(os.FileMode(0o666))}
			c.equal("open", open(c, "/dev/kmsg", dev(d, ""), capabilities("CAP_SYSLOG", "CAP_SYS_ADMIN")), "EPERM")
		}},
		{"devices/rule-read-only", "config-linux.md, Allowed Device list; runc, dev.bats", func(c *check) {
			d := specs.LinuxDevice{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11, FileMode: ptr(os.FileMode(0o666))}
			out := c.sh("/bin/"+probeName+" openall /dev/kmsg; (: < /dev/kmsg) && echo reads", dev(d, "r"), capabilities("CAP_SYSLOG", "CAP_SYS_ADMIN"))
			c.equal("open", out, "/dev/kmsg EPERM\nreads")
		}},
		{"devices/mknod-of-what-is-denied-can-not-be-opened", "config-linux.md, Allowed Device list", func(c *check) {
			out := c.sh("mknod /tmp/kmsg c 1 11 2>/dev/null; /bin/"+probeName+" openall /tmp/kmsg", capabilities("CAP_MKNOD", "CAP_SYSLOG"))
			if strings.Contains(out, "done") {
				c.failf("%s", out)
			}
		}},
		{"devices/rules-of-exec", "runc, dev.bats", func(c *check) {
			ct := c.running(dev(specs.LinuxDevice{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11, FileMode: ptr(os.FileMode(0o666))}, ""))
			c.equal("open", ct.exec("/bin/"+probeName, "openall", "/dev/kmsg"), "/dev/kmsg EPERM")
		}},
	}
	return list
}
