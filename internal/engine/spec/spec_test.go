package spec

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const testID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func plain() Input {
	return Input{
		ID: testID, Config: &container.Config{Cmd: []string{"serve"}}, HostConfig: &container.HostConfig{NetworkMode: "bridge"},
		User: User{Home: "/root"}, CgroupParent: "/tare/test", Init: "/usr/bin/tare-run",
		Files: Files{Hosts: "/c/hosts", Hostname: "/c/hostname", ResolvConf: "/c/resolv.conf"},
		Host:  Host{SwapLimit: true, CPUs: 4, AppArmor: true, OnlineCPUs: "0-3", OnlineNodes: "0"},
	}
}

func ptr[T any](v T) *T { return &v }

// flags is one change of the plain input for each flag of `docker run` that the spec shows.
var flags = map[string]func(*Input){
	"annotation":         func(i *Input) { i.HostConfig.Annotations = map[string]string{"a.b": "c"} },
	"blkio-weight":       func(i *Input) { i.HostConfig.BlkioWeight = 300 },
	"cap-add":            func(i *Input) { i.HostConfig.CapAdd = []string{"net_admin"} },
	"cap-add-all":        func(i *Input) { i.HostConfig.CapAdd = []string{"ALL"}; i.HostConfig.CapDrop = []string{"SYS_ADMIN"} },
	"cap-drop":           func(i *Input) { i.HostConfig.CapDrop = []string{"CAP_CHOWN"} },
	"cap-drop-all":       func(i *Input) { i.HostConfig.CapDrop = []string{"ALL"}; i.HostConfig.CapAdd = []string{"KILL"} },
	"cgroup-parent":      func(i *Input) { i.HostConfig.CgroupParent = "/mine" },
	"cgroupns-host":      func(i *Input) { i.HostConfig.CgroupnsMode = "host" },
	"cpu-period":         func(i *Input) { i.HostConfig.CPUPeriod = 50000 },
	"cpu-quota":          func(i *Input) { i.HostConfig.CPUQuota = 25000 },
	"cpu-rt-period":      func(i *Input) { i.HostConfig.CPURealtimePeriod = 1000000 },
	"cpu-rt-runtime":     func(i *Input) { i.HostConfig.CPURealtimeRuntime = 950000 },
	"cpu-shares":         func(i *Input) { i.HostConfig.CPUShares = 512 },
	"cpus":               func(i *Input) { i.HostConfig.NanoCPUs = 1_500_000_000 },
	"cpuset-cpus":        func(i *Input) { i.HostConfig.CpusetCpus = "0-1" },
	"cpuset-mems":        func(i *Input) { i.HostConfig.CpusetMems = "0" },
	"device-cgroup-rule": func(i *Input) { i.HostConfig.DeviceCgroupRules = []string{"c 42:* rmw"} },
	"device": func(i *Input) {
		i.Devices = []Device{{Node: specs.LinuxDevice{Path: "/dev/x", Type: "c", Major: 1, Minor: 5}, Access: "rw"}}
	},
	"device-read-bps": func(i *Input) {
		i.HostConfig.BlkioDeviceReadBps = []*blkiodev.ThrottleDevice{{Path: "/dev/sda", Rate: 1 << 20}}
		i.Block = map[string]Number{"/dev/sda": {8, 0}}
	},
	"domainname":       func(i *Input) { i.Config.Domainname = "example.org" },
	"entrypoint":       func(i *Input) { i.Config.Entrypoint = []string{"/entry", "-x"} },
	"entrypoint-reset": func(i *Input) { i.Config.Entrypoint = []string{""} },
	"env":              func(i *Input) { i.Config.Env = []string{"A=1", "PATH=/only", "HOSTNAME"} },
	"group-add":        func(i *Input) { i.User.Groups = []uint32{10, 20} },
	"hostname":         func(i *Input) { i.Config.Hostname = "web" },
	"init":             func(i *Input) { i.HostConfig.Init = ptr(true) },
	"ipc-container": func(i *Input) {
		i.HostConfig.IpcMode = "container:x"
		i.Join.IPC = "/proc/7/ns/ipc"
		i.Join.Shm = "/d/shm"
	},
	"ipc-host":           func(i *Input) { i.HostConfig.IpcMode = "host" },
	"ipc-none":           func(i *Input) { i.HostConfig.IpcMode = "none" },
	"memory":             func(i *Input) { i.HostConfig.Memory = 64 << 20; i.HostConfig.MemorySwap = 128 << 20 },
	"memory-reservation": func(i *Input) { i.HostConfig.MemoryReservation = 32 << 20 },
	"memory-swappiness":  func(i *Input) { i.HostConfig.MemorySwappiness = ptr(int64(7)) },
	"mount-bind-nonrecursive": func(i *Input) {
		i.Mounts = []Mount{{Type: mount.TypeBind, Source: "/s", Destination: "/d", NonRecursive: true, ReadOnly: true}}
	},
	"mount-tmpfs": func(i *Input) {
		i.Mounts = []Mount{{Type: mount.TypeTmpfs, Destination: "/t", Options: []string{"size=1024", "mode=700"}}}
	},
	"mount-volume-tmpfs": func(i *Input) {
		i.Mounts = []Mount{{Type: mount.TypeVolume, Source: "tmpfs", FSType: "tmpfs", Options: []string{"size=1m"}, Destination: "/t", ReadOnly: true}}
	},
	"network-container":    func(i *Input) { i.HostConfig.NetworkMode = "container:x"; i.Join.Network = "/proc/7/ns/net" },
	"network-host":         func(i *Input) { i.HostConfig.NetworkMode = "host" },
	"oom-kill-disable":     func(i *Input) { i.HostConfig.OomKillDisable = ptr(true) },
	"oom-score-adj":        func(i *Input) { i.HostConfig.OomScoreAdj = 500 },
	"pid-container":        func(i *Input) { i.HostConfig.PidMode = "container:x"; i.Join.PID = "/proc/7/ns/pid" },
	"pid-host":             func(i *Input) { i.HostConfig.PidMode = "host" },
	"pids-limit":           func(i *Input) { i.HostConfig.PidsLimit = ptr(int64(50)) },
	"pids-limit-unlimited": func(i *Input) { i.HostConfig.PidsLimit = ptr(int64(0)) },
	"privileged": func(i *Input) {
		i.HostConfig.Privileged = true
		i.Host.Devices = []specs.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232}}
	},
	"read-only":             func(i *Input) { i.HostConfig.ReadonlyRootfs = true },
	"security-opt-apparmor": func(i *Input) { i.HostConfig.SecurityOpt = []string{"apparmor=mine"} },
	"security-opt-no-new":   func(i *Input) { i.HostConfig.SecurityOpt = []string{"no-new-privileges"} },
	"security-opt-seccomp": func(i *Input) {
		i.HostConfig.SecurityOpt = []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`}
	},
	"security-opt-unconfined": func(i *Input) { i.HostConfig.SecurityOpt = []string{"seccomp=unconfined"} },
	"security-opt-paths":      func(i *Input) { i.HostConfig.MaskedPaths = []string{}; i.HostConfig.ReadonlyPaths = []string{} },
	"security-opt-cgroups":    func(i *Input) { i.HostConfig.SecurityOpt = []string{"writable-cgroups=true"} },
	"shm-size":                func(i *Input) { i.HostConfig.ShmSize = 1 << 20 },
	"sysctl": func(i *Input) {
		i.HostConfig.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "1024", "kernel.msgmax": "65536"}
	},
	"tty": func(i *Input) { i.Config.Tty = true; i.HostConfig.ConsoleSize = [2]uint{24, 80} },
	"ulimit": func(i *Input) {
		i.HostConfig.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 100, Hard: -1}}
		i.Ulimits = map[string]*container.Ulimit{"core": {Name: "core"}}
	},
	"umask":    func(i *Input) { i.HostConfig.Umask = ptr(uint32(0o77)) },
	"user":     func(i *Input) { i.User = User{UID: 1000, GID: 1000, Home: "/home/app"} },
	"uts-host": func(i *Input) { i.HostConfig.UTSMode = "host" },
	"volume": func(i *Input) {
		i.Mounts = []Mount{{Type: mount.TypeVolume, Source: "/v/_data", Destination: "/a/b"}, {Type: mount.TypeBind, Source: "/s", Destination: "/a", ReadOnly: true, Propagation: "rshared"}}
	},
	"volume-over-default": func(i *Input) {
		i.Mounts = []Mount{{Type: mount.TypeBind, Source: "/s", Destination: "/etc/hosts"}, {Type: mount.TypeTmpfs, Destination: "/dev/shm"}}
	},
	"workdir": func(i *Input) { i.Config.WorkingDir = "/srv" },
}

// lines flattens a spec to one "path = value" per leaf; elements of lists that have a name go by it, so that a golden
// file shows only what the flag changed.
func lines(t *testing.T, s *specs.Spec) []string {
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	json.Unmarshal(data, &tree)
	var out []string
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				walk(path+"."+k, x)
			}
		case []any:
			for i, x := range v {
				key := fmt.Sprint(i)
				if m, ok := x.(map[string]any); ok {
					for _, name := range []string{"destination", "path", "type"} {
						if n, ok := m[name].(string); ok {
							key = n
							break
						}
					}
				} else {
					key = "" // a set: order does not show, except for arguments
					if path == ".process.args" {
						key = fmt.Sprint(i)
					}
				}
				if strings.HasSuffix(path, ".syscalls") || strings.HasSuffix(path, ".resources.devices") {
					one, _ := json.Marshal(x)
					out = append(out, path[1:]+" = "+string(one))
					continue
				}
				walk(path+"["+key+"]", x)
			}
		default:
			one, _ := json.Marshal(v)
			out = append(out, strings.TrimPrefix(path, ".")+" = "+string(one))
		}
	}
	walk("", tree)
	slices.Sort(out)
	return out
}

func difference(base, with []string) string {
	var b strings.Builder
	for _, l := range base {
		if !slices.Contains(with, l) {
			b.WriteString("- " + l + "\n")
		}
	}
	for _, l := range with {
		if !slices.Contains(base, l) {
			b.WriteString("+ " + l + "\n")
		}
	}
	return b.String()
}

func TestFlags(t *testing.T) {
	s, err := Build(plain())
	if err != nil {
		t.Fatal(err)
	}
	base := lines(t, s)
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		t.Run(name, func(t *testing.T) {
			in := plain()
			flags[name](&in)
			if _, err := Validate(in.Config, in.HostConfig, in.Host); err != nil {
				t.Fatal(err)
			}
			s, err := Build(in)
			if err != nil {
				t.Fatal(err)
			}
			got := difference(base, lines(t, s))
			path := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*container.Config, *container.HostConfig)
		words  string
	}{
		"no command":  {func(c *container.Config, h *container.HostConfig) { c.Cmd = nil }, "no command specified"},
		"workdir":     {func(c *container.Config, h *container.HostConfig) { c.WorkingDir = "x" }, "needs to be an absolute path"},
		"env":         {func(c *container.Config, h *container.HostConfig) { c.Env = []string{"=x"} }, "invalid environment variable"},
		"stop signal": {func(c *container.Config, h *container.HostConfig) { c.StopSignal = "SIGNOPE" }, "invalid signal: SIGNOPE"},
		"health": {func(c *container.Config, h *container.HostConfig) {
			c.Healthcheck = &container.HealthConfig{Interval: 1}
		}, "Interval in Healthcheck"},
		"userns":  {func(c *container.Config, h *container.HostConfig) { h.UsernsMode = "private" }, "--userns"},
		"runtime": {func(c *container.Config, h *container.HostConfig) { h.Runtime = "kata" }, "unknown or invalid runtime name: kata"},
		"rm+restart": {func(c *container.Config, h *container.HostConfig) {
			h.AutoRemove = true
			h.RestartPolicy.Name = "always"
		}, "can't create 'AutoRemove'"},
		"policy": {func(c *container.Config, h *container.HostConfig) { h.RestartPolicy.Name = "often" }, "unknown policy 'often'"},
		"sysctl": {func(c *container.Config, h *container.HostConfig) {
			h.Sysctls = map[string]string{"vm.swappiness": "1"}
		}, "vm.swappiness"},
		"log driver": {func(c *container.Config, h *container.HostConfig) { h.LogConfig.Type = "syslog" }, "no log driver named 'syslog'"},
		"log option": {func(c *container.Config, h *container.HostConfig) {
			h.LogConfig.Config = map[string]string{"lables": "a"}
		}, "unknown log opt 'lables' for json-file log driver"},
		"gpus": {func(c *container.Config, h *container.HostConfig) {
			h.DeviceRequests = []container.DeviceRequest{{Capabilities: [][]string{{"gpu"}}}}
		}, "gpu"},
		"storage": {func(c *container.Config, h *container.HostConfig) { h.StorageOpt = map[string]string{"size": "1G"} }, "--storage-opt"},
		"image mount": {func(c *container.Config, h *container.HostConfig) {
			h.Mounts = []mount.Mount{{Type: mount.TypeImage, Target: "/x"}}
		}, "type image"},
		"subpath": {func(c *container.Config, h *container.HostConfig) {
			h.Mounts = []mount.Mount{{Type: mount.TypeVolume, Target: "/x", Source: "v", VolumeOptions: &mount.VolumeOptions{Subpath: "../a"}}}
		}, "subpath must be a relative path within the volume"},
		"twice":        {func(c *container.Config, h *container.HostConfig) { h.Binds = []string{"a:/x", "bb:/x"} }, "Duplicate mount point: /x"},
		"bind mode":    {func(c *container.Config, h *container.HostConfig) { h.Binds = []string{"/a:/x:nope"} }, "invalid mode: nope"},
		"bind root":    {func(c *container.Config, h *container.HostConfig) { h.Binds = []string{"/a:/"} }, "destination can't be '/'"},
		"memory":       {func(c *container.Config, h *container.HostConfig) { h.Memory = 1 }, "Minimum memory limit allowed is 6MB"},
		"cpu set":      {func(c *container.Config, h *container.HostConfig) { h.CpusetCpus = "0-1,7" }, "Requested CPUs are not available - requested 0-1,7, available: 0-3"},
		"cpu list":     {func(c *container.Config, h *container.HostConfig) { h.CpusetCpus = "0-99999999999" }, "for cpuset cpus: invalid format"},
		"node set":     {func(c *container.Config, h *container.HostConfig) { h.CpusetMems = "1" }, "Requested memory nodes are not available - requested 1, available: 0"},
		"bind to":      {func(c *container.Config, h *container.HostConfig) { h.Binds = []string{"/a:x"} }, "invalid mount path: 'x' mount path must be absolute"},
		"cpus":         {func(c *container.Config, h *container.HostConfig) { h.NanoCPUs = 9e9 }, "range of CPUs"},
		"capability":   {func(c *container.Config, h *container.HostConfig) { h.CapAdd = []string{"FLY"} }, `invalid capability: "FLY"`},
		"security opt": {func(c *container.Config, h *container.HostConfig) { h.SecurityOpt = []string{"nope=1"} }, "invalid --security-opt 2"},
		"ulimit": {func(c *container.Config, h *container.HostConfig) {
			h.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 2, Hard: 1}}
		}, "ulimit soft limit"},
		"windows":       {func(c *container.Config, h *container.HostConfig) { h.CPUCount = 1 }, "Windows only"},
		"tmpfs":         {func(c *container.Config, h *container.HostConfig) { h.Tmpfs = map[string]string{"/t": "huge"} }, "invalid tmpfs option"},
		"device rule":   {func(c *container.Config, h *container.HostConfig) { h.DeviceCgroupRules = []string{"z"} }, "invalid device cgroup rule"},
		"cgroup parent": {func(c *container.Config, h *container.HostConfig) { h.CgroupParent = "/a/../.." }, "cgroup-parent"},
		"volume driver": {func(c *container.Config, h *container.HostConfig) { h.VolumeDriver = "nfs" }, "nfs"},
		"net ports": {func(c *container.Config, h *container.HostConfig) {
			h.NetworkMode = "container:x"
			h.PublishAllPorts = true
		}, "port publishing"},
	} {
		in := plain()
		c.change(in.Config, in.HostConfig)
		_, err := Validate(in.Config, in.HostConfig, in.Host)
		if err == nil || !strings.Contains(err.Error(), c.words) || !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: got %v, want %q", name, err, c.words)
		}
	}
}

func TestMerge(t *testing.T) {
	image := dockerspec.DockerOCIImageConfig{}
	image.Cmd, image.Entrypoint, image.Env = []string{"c"}, []string{"e"}, []string{"A=image", "B=image"}
	image.Labels, image.ExposedPorts = map[string]string{"l": "image"}, map[string]struct{}{"80/tcp": {}}
	image.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "t"}, Retries: 5}
	c, err := Merge(&container.Config{Env: []string{"A=own"}, Cmd: []string{"own"}, Healthcheck: &container.HealthConfig{Interval: time.Second}}, image)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(Command(c), " ") + "|" + strings.Join(c.Env, " "); got != "e own|A=own B=image" {
		t.Error(got)
	}
	if c.Healthcheck.Retries != 5 || c.Healthcheck.Interval != time.Second || len(c.ExposedPorts) != 1 || c.Labels["l"] != "image" {
		t.Errorf("%+v", c)
	}
	if c, _ = Merge(&container.Config{Entrypoint: []string{"x"}}, image); strings.Join(Command(c), " ") != "x" {
		t.Error("an own entrypoint took the image's command")
	}
}

func FuzzParseBind(f *testing.F) {
	for _, s := range []string{"/a:/b:ro,z", "v:/b", "/b", ":", "a:b:c:d", "/a:/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBind(s)
		if err == nil && (!filepath.IsAbs(b.Destination) || b.Destination == "/" || strings.Contains(b.Destination, "/../")) {
			t.Errorf("%q became %+v", s, b)
		}
	})
}
