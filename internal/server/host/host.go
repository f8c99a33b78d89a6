// Package host tells what `docker info` and `docker version` show of the machine
// and of this engine. Facts are read when asked for; only what can't change while the engine runs is kept.
package host

import (
	"bufio"
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"tare/internal/server/config"

	"tare/internal/runtime/cgroup/unit"
)

// Facts are what the engine knows of itself.
type Facts struct {
	ID         string // of this engine, kept in its data root
	Version    string
	MinAPI     string
	MaxAPI     string
	Config     *config.Config
	Runtime    string // path of tare-run
	Registries *registry.ServiceConfig
	Warnings   []string
}

// Info answers GET /info without the counts of containers and images.
func (f Facts) Info() system.Info {
	u := uname()
	limits := limits()
	release := osRelease("/etc/os-release")
	c := f.Config
	debugging, labels := c.Live()
	driver := "cgroupfs"
	if unit.IsSlice(c.CgroupParent) {
		driver = "systemd"
	}
	info := system.Info{
		ID: f.ID, Driver: "overlay2", DriverStatus: [][2]string{
			{"Backing Filesystem", backingFS(c.DataRoot)}, {"Supports d_type", "true"},
			{"Using metacopy", "false"}, {"Native Overlay Diff", "true"}, {"userxattr", "false"},
		},
		Plugins: system.PluginsInfo{
			Volume: []string{"local"}, Network: []string{"bridge", "host", "null"},
			Authorization: nil, Log: []string{"json-file", "local", "none"},
		},
		MemoryLimit: limits["memory"], SwapLimit: limits["swap"], CPUCfsPeriod: limits["cfs"], CPUCfsQuota: limits["cfs"],
		CPUShares: limits["cpu"], CPUSet: limits["cpuset"], PidsLimit: limits["pids"], OomKillDisable: limits["oom"],
		IPv4Forwarding: readWord("/proc/sys/net/ipv4/ip_forward") == "1",
		Debug:          debugging, NFd: openFiles(), NGoroutines: runtime.NumGoroutine(),
		SystemTime:    time.Now().Format(time.RFC3339Nano),
		LoggingDriver: c.LogDriver, CgroupDriver: driver, CgroupVersion: cgroupVersion(),
		KernelVersion: u.release, OperatingSystem: release["PRETTY_NAME"], OSVersion: release["VERSION_ID"],
		OSType: "linux", Architecture: u.machine, Name: u.node,
		IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: f.Registries,
		NCPU: runtime.NumCPU(), MemTotal: memTotal(), GenericResources: []swarm.GenericResource{},
		DockerRootDir: c.DataRoot, Labels: append([]string{}, labels...), ServerVersion: f.Version,
		HTTPProxy: c.HTTPProxy, HTTPSProxy: c.HTTPSProxy, NoProxy: c.NoProxy,
		Runtimes:       runtimes(f.Runtime, c),
		DefaultRuntime: c.DefaultRuntime, LiveRestoreEnabled: true,
		Swarm:            swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive, RemoteManagers: []swarm.Peer{}},
		ContainerdCommit: system.Commit{}, RuncCommit: system.Commit{ID: f.Version}, InitCommit: system.Commit{}, InitBinary: "tare-run",
		SecurityOptions: securityOptions(), CDISpecDirs: []string{},
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		Warnings:        append([]string{}, f.Warnings...),
	}
	if !c.Firewall {
		info.FirewallBackend = nil
	}
	for _, p := range c.AddressPools {
		info.DefaultAddressPools = append(info.DefaultAddressPools, system.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	for what, warning := range missing {
		if !limits[what] {
			info.Warnings = append(info.Warnings, warning)
		}
	}
	if !info.IPv4Forwarding {
		info.Warnings = append(info.Warnings, "WARNING: IPv4 forwarding is disabled")
	}
	return info
}

// missing is what is said about limits that this kernel can't set.
var missing = map[string]string{
	"memory": "WARNING: No memory limit support",
	"cfs":    "WARNING: No cpu cfs quota support",
	"cpuset": "WARNING: No cpuset support",
	"pids":   "WARNING: No pids limit support",
}

// Engine answers GET /version.
func (f Facts) Engine() system.VersionResponse {
	u := uname()
	commit, built := buildInfo()
	return system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Tare"}, Version: f.Version, APIVersion: f.MaxAPI, MinAPIVersion: f.MinAPI,
		Os: "linux", Arch: runtime.GOARCH, GitCommit: commit, GoVersion: runtime.Version(), KernelVersion: u.release, BuildTime: built,
		Components: []system.ComponentVersion{
			{Name: "Engine", Version: f.Version, Details: map[string]string{
				"ApiVersion": f.MaxAPI, "MinAPIVersion": f.MinAPI, "Arch": runtime.GOARCH, "Os": "linux", "BuildTime": built,
				"GitCommit": commit, "GoVersion": runtime.Version(), "KernelVersion": u.release, "Experimental": "false",
			}},
			{Name: "tare-run", Version: f.Version, Details: map[string]string{"GitCommit": commit}},
		},
	}
}

func buildInfo() (commit, built string) {
	commit = "unknown"
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return commit, built
	}
	for _, s := range bi.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(len(s.Value), 7)]
		case "vcs.time":
			built = s.Value
		}
	}
	return commit, built
}

func securityOptions() []string {
	opts := []string{}
	if _, err := os.Stat("/proc/sys/kernel/seccomp"); err == nil {
		opts = append(opts, "name=seccomp,profile=builtin")
	}
	if cgroupVersion() == "2" {
		opts = append(opts, "name=cgroupns")
	}
	return opts
}

type names struct{ node, release, machine string }

func uname() names {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return names{}
	}
	return names{unix.ByteSliceToString(u.Nodename[:]), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])}
}

// osRelease reads os-release(5).
func osRelease(path string) map[string]string {
	values := map[string]string{"PRETTY_NAME": "Linux"}
	data, err := os.ReadFile(path)
	if err != nil {
		return values
	}
	sc := bufio.NewScanner(bytes.NewReader(data))
	for sc.Scan() {
		k, v, ok := strings.Cut(sc.Text(), "=")
		if !ok || strings.HasPrefix(k, "#") {
			continue
		}
		if s, err := strconv.Unquote(v); err == nil {
			v = s
		}
		values[k] = strings.Trim(v, "'")
	}
	return values
}

// memTotal is the machine's memory in bytes (proc_meminfo(5)).
func memTotal() int64 {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0
	}
	return int64(si.Totalram) * int64(si.Unit)
}

func openFiles() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(d)
}

func readWord(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// cgroupVersion is "2" where all controllers are in the unified hierarchy, else "1" (cgroups(7)).
func cgroupVersion() string {
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "2"
	}
	return "1"
}

// limits tells which limits can be set.
func limits() map[string]bool {
	has := map[string]bool{}
	if cgroupVersion() == "2" {
		for c := range strings.FieldsSeq(readWord("/sys/fs/cgroup/cgroup.controllers")) {
			has[c] = true
		}
		has["cfs"], has["swap"] = has["cpu"], has["memory"]
		return has
	}
	exists := func(path string) bool { _, err := os.Stat("/sys/fs/cgroup/" + path); return err == nil }
	return map[string]bool{
		"memory": exists("memory/memory.limit_in_bytes") || exists("memory"),
		"swap":   exists("memory/memory.memsw.limit_in_bytes"),
		"oom":    exists("memory/memory.oom_control"),
		"cpu":    exists("cpu/cpu.shares"),
		"cfs":    exists("cpu/cpu.cfs_quota_us"),
		"cpuset": exists("cpuset/cpuset.cpus"),
		"pids":   exists("pids"),
	}
}

// filesystems are statfs(2)'s magic numbers in Docker's words.
var filesystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "extfs", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.NFS_SUPER_MAGIC: "nfs", unix.F2FS_SUPER_MAGIC: "f2fs",
}

func backingFS(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "<unknown>"
	}
	if name, ok := filesystems[int64(st.Type)]; ok {
		return name
	}
	return "<unknown>"
}

// runtimes are tare-run at path and those of the configuration.
func runtimes(path string, c *config.Config) map[string]system.RuntimeWithStatus {
	all := map[string]system.RuntimeWithStatus{"tare-run": {Runtime: system.Runtime{Path: path}}}
	for name, r := range c.Runtimes {
		all[name] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: r.Path, Args: r.Args}}
	}
	return all
}
