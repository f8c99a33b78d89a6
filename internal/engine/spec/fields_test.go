package spec

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// fate is what happens to a field of a request.
type fate struct {
	// built: the spec differs with it. refused: Validate names it.
	built, refused func(c *container.Config, h *container.HostConfig)
	// code is something in the engine's code, outside the tests, that reads it.
	code string
	// shown says why a field is kept for inspect and has no effect.
	shown string
}

type (
	config = container.Config
	host   = container.HostConfig
)

func built(f func(c *config, h *host)) fate   { return fate{built: f} }
func refused(f func(c *config, h *host)) fate { return fate{refused: f} }
func code(s string) fate                      { return fate{code: s} }
func shown(s string) fate                     { return fate{shown: s} }

func throttled() []*blkiodev.ThrottleDevice {
	return []*blkiodev.ThrottleDevice{{Path: "/dev/sda", Rate: 1 << 20}}
}

func withMount(m mount.Mount) fate {
	return refused(func(_ *config, h *host) { h.Mounts = []mount.Mount{m} })
}

// fates has every field of a create request: honoured, refused by name, or shown only. A field that the API's module
// gains has to be put here, and there is nothing to be ignored in silence.
var fates = map[string]fate{
	"Config.Hostname":        built(func(c *config, _ *host) { c.Hostname = "other" }),
	"Config.Domainname":      built(func(c *config, _ *host) { c.Domainname = "example" }),
	"Config.User":            code("rec.Config.User"),
	"Config.AttachStdin":     shown("the client attaches"),
	"Config.AttachStdout":    shown("the client attaches"),
	"Config.AttachStderr":    shown("the client attaches"),
	"Config.ExposedPorts":    code("rec.Config.ExposedPorts"),
	"Config.Tty":             built(func(c *config, _ *host) { c.Tty = true }),
	"Config.OpenStdin":       code("rec.Config.OpenStdin"),
	"Config.StdinOnce":       code("rec.Config.StdinOnce"),
	"Config.Env":             built(func(c *config, _ *host) { c.Env = []string{"X=y"} }),
	"Config.Cmd":             built(func(c *config, _ *host) { c.Cmd = []string{"other"} }),
	"Config.Healthcheck":     code("Config.Healthcheck"),
	"Config.ArgsEscaped":     shown("Windows: its command line is a single string"),
	"Config.Image":           code("Config.Image"),
	"Config.Volumes":         code("config.Volumes"),
	"Config.WorkingDir":      built(func(c *config, _ *host) { c.WorkingDir = "/tmp" }),
	"Config.Entrypoint":      built(func(c *config, _ *host) { c.Entrypoint = []string{"entry"} }),
	"Config.NetworkDisabled": code("Config.NetworkDisabled"),
	"Config.OnBuild":         shown("for images that commit makes"),
	"Config.Labels":          code("Config.Labels"),
	"Config.StopSignal":      code("Config.StopSignal"),
	"Config.StopTimeout":     code("Config.StopTimeout"),
	"Config.Shell":           code("Config.Shell"),

	"HealthcheckConfig.Test":          code("Config.Test"),
	"HealthcheckConfig.Interval":      code("Config.Interval"),
	"HealthcheckConfig.Timeout":       code("Config.Timeout"),
	"HealthcheckConfig.StartPeriod":   code("Config.StartPeriod"),
	"HealthcheckConfig.StartInterval": code("Config.StartInterval"),
	"HealthcheckConfig.Retries":       code("Config.Retries"),

	"HostConfig.Binds":           code("host.Binds"),
	"HostConfig.ContainerIDFile": shown("the client writes it"),
	"HostConfig.LogConfig":       code("HostConfig.LogConfig"),
	"HostConfig.NetworkMode":     built(func(_ *config, h *host) { h.NetworkMode = "host" }),
	"HostConfig.PortBindings":    code("h.PortBindings"),
	"HostConfig.RestartPolicy":   code("HostConfig.RestartPolicy"),
	"HostConfig.AutoRemove":      code("HostConfig.AutoRemove"),
	"HostConfig.VolumeDriver":    refused(func(_ *config, h *host) { h.VolumeDriver = "other" }),
	"HostConfig.VolumesFrom":     code("host.VolumesFrom"),
	"HostConfig.ConsoleSize":     code("HostConfig.ConsoleSize"),
	"HostConfig.Annotations":     built(func(_ *config, h *host) { h.Annotations = map[string]string{"a": "b"} }),
	"HostConfig.CapAdd":          built(func(_ *config, h *host) { h.CapAdd = []string{"NET_ADMIN"} }),
	"HostConfig.CapDrop":         built(func(_ *config, h *host) { h.CapDrop = []string{"CHOWN"} }),
	"HostConfig.CgroupnsMode":    built(func(_ *config, h *host) { h.CgroupnsMode = "host" }),
	"HostConfig.DNS":             code("h.DNS"),
	"HostConfig.DNSOptions":      code("h.DNSOptions"),
	"HostConfig.DNSSearch":       code("h.DNSSearch"),
	"HostConfig.ExtraHosts":      code(".ExtraHosts"),
	"HostConfig.GroupAdd":        code("h.GroupAdd"),
	"HostConfig.IpcMode":         built(func(_ *config, h *host) { h.IpcMode = "host" }),
	"HostConfig.Cgroup":          refused(func(_ *config, h *host) { h.Cgroup = "container:x" }),
	"HostConfig.Links":           code("h.Links"),
	"HostConfig.OomScoreAdj":     built(func(_ *config, h *host) { h.OomScoreAdj = 5 }),
	"HostConfig.PidMode":         built(func(_ *config, h *host) { h.PidMode = "host" }),
	"HostConfig.Privileged":      built(func(_ *config, h *host) { h.Privileged = true }),
	"HostConfig.PublishAllPorts": code("h.PublishAllPorts"),
	"HostConfig.ReadonlyRootfs":  built(func(_ *config, h *host) { h.ReadonlyRootfs = true }),
	"HostConfig.SecurityOpt":     built(func(_ *config, h *host) { h.SecurityOpt = []string{"no-new-privileges"} }),
	"HostConfig.StorageOpt":      refused(func(_ *config, h *host) { h.StorageOpt = map[string]string{"size": "1G"} }),
	"HostConfig.Tmpfs":           code("host.Tmpfs"),
	"HostConfig.UTSMode":         built(func(_ *config, h *host) { h.UTSMode = "host" }),
	"HostConfig.UsernsMode":      refused(func(_ *config, h *host) { h.UsernsMode = "private" }),
	"HostConfig.ShmSize":         built(func(_ *config, h *host) { h.ShmSize = 1 << 20 }),
	"HostConfig.Sysctls":         built(func(_ *config, h *host) { h.Sysctls = map[string]string{"net.core.somaxconn": "9"} }),
	"HostConfig.Runtime":         refused(func(_ *config, h *host) { h.Runtime = "other" }),
	"HostConfig.Umask":           built(func(_ *config, h *host) { h.Umask = ptr(uint32(0o77)) }),
	"HostConfig.Isolation":       refused(func(_ *config, h *host) { h.Isolation = "hyperv" }),
	"HostConfig.Mounts":          code("host.Mounts"),
	"HostConfig.MaskedPaths":     built(func(_ *config, h *host) { h.MaskedPaths = []string{"/proc/kcore"} }),
	"HostConfig.ReadonlyPaths":   built(func(_ *config, h *host) { h.ReadonlyPaths = []string{"/proc/sys"} }),
	"HostConfig.Init":            built(func(_ *config, h *host) { h.Init = ptr(true) }),

	"Resources.CPUShares":    built(func(_ *config, h *host) { h.CPUShares = 512 }),
	"Resources.Memory":       built(func(_ *config, h *host) { h.Memory = 64 << 20 }),
	"Resources.NanoCPUs":     built(func(_ *config, h *host) { h.NanoCPUs = 5e8 }),
	"Resources.CgroupParent": built(func(_ *config, h *host) { h.CgroupParent = "/other" }),
	"Resources.BlkioWeight":  built(func(_ *config, h *host) { h.BlkioWeight = 100 }),
	"Resources.BlkioWeightDevice": built(func(_ *config, h *host) {
		h.BlkioWeightDevice = []*blkiodev.WeightDevice{{Path: "/dev/sda", Weight: 100}}
	}),
	"Resources.BlkioDeviceReadBps":   built(func(_ *config, h *host) { h.BlkioDeviceReadBps = throttled() }),
	"Resources.BlkioDeviceWriteBps":  built(func(_ *config, h *host) { h.BlkioDeviceWriteBps = throttled() }),
	"Resources.BlkioDeviceReadIOps":  built(func(_ *config, h *host) { h.BlkioDeviceReadIOps = throttled() }),
	"Resources.BlkioDeviceWriteIOps": built(func(_ *config, h *host) { h.BlkioDeviceWriteIOps = throttled() }),
	"Resources.CPUPeriod":            built(func(_ *config, h *host) { h.CPUPeriod = 50000 }),
	"Resources.CPUQuota":             built(func(_ *config, h *host) { h.CPUQuota = 50000 }),
	"Resources.CPURealtimePeriod":    built(func(_ *config, h *host) { h.CPURealtimePeriod = 50000 }),
	"Resources.CPURealtimeRuntime":   built(func(_ *config, h *host) { h.CPURealtimeRuntime = 50000 }),
	"Resources.CpusetCpus":           built(func(_ *config, h *host) { h.CpusetCpus = "0" }),
	"Resources.CpusetMems":           built(func(_ *config, h *host) { h.CpusetMems = "0" }),
	"Resources.Devices":              code("h.Devices"),
	"Resources.DeviceCgroupRules":    built(func(_ *config, h *host) { h.DeviceCgroupRules = []string{"c 1:3 rwm"} }),
	"Resources.DeviceRequests":       refused(func(_ *config, h *host) { h.DeviceRequests = []container.DeviceRequest{{Driver: "gpu"}} }),
	"Resources.MemoryReservation":    built(func(_ *config, h *host) { h.MemoryReservation = 64 << 20 }),
	"Resources.MemorySwap":           built(func(_ *config, h *host) { h.Memory, h.MemorySwap = 64<<20, 128<<20 }),
	"Resources.MemorySwappiness":     built(func(_ *config, h *host) { h.MemorySwappiness = ptr(int64(5)) }),
	"Resources.OomKillDisable":       built(func(_ *config, h *host) { h.OomKillDisable = ptr(true) }),
	"Resources.PidsLimit":            built(func(_ *config, h *host) { h.PidsLimit = ptr(int64(5)) }),
	"Resources.Ulimits":              built(func(_ *config, h *host) { h.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 5, Hard: 5}} }),
	"Resources.CPUCount":             refused(func(_ *config, h *host) { h.CPUCount = 1 }),
	"Resources.CPUPercent":           refused(func(_ *config, h *host) { h.CPUPercent = 1 }),
	"Resources.IOMaximumIOps":        refused(func(_ *config, h *host) { h.IOMaximumIOps = 1 }),
	"Resources.IOMaximumBandwidth":   refused(func(_ *config, h *host) { h.IOMaximumBandwidth = 1 }),

	"Mount.Type":           withMount(mount.Mount{Type: "odd", Target: "/x"}),
	"Mount.Source":         code("w.Source"),
	"Mount.Target":         code("w.Target"),
	"Mount.ReadOnly":       code("w.ReadOnly"),
	"Mount.Consistency":    shown("a hint for shared folders of a Mac"),
	"Mount.BindOptions":    code("w.BindOptions"),
	"Mount.VolumeOptions":  code("w.VolumeOptions"),
	"Mount.ImageOptions":   withMount(mount.Mount{Type: mount.TypeImage, Source: "i", Target: "/x", ImageOptions: &mount.ImageOptions{}}),
	"Mount.TmpfsOptions":   code("w.TmpfsOptions"),
	"Mount.ClusterOptions": withMount(mount.Mount{Type: mount.TypeCluster, Source: "i", Target: "/x", ClusterOptions: &mount.ClusterOptions{}}),

	"BindOptions.Propagation":            code("o.Propagation"),
	"BindOptions.NonRecursive":           code("o.NonRecursive"),
	"BindOptions.CreateMountpoint":       code("o.CreateMountpoint"),
	"BindOptions.ReadOnlyNonRecursive":   code("o.ReadOnlyNonRecursive"),
	"BindOptions.ReadOnlyForceRecursive": shown("a read-only bind is recursively so, or fails"),
	"VolumeOptions.NoCopy":               code("o.NoCopy"),
	"VolumeOptions.Labels":               code("o.Labels"),
	"VolumeOptions.Subpath":              code("VolumeOptions.Subpath"),
	"VolumeOptions.DriverConfig":         code("o.DriverConfig"),
	"TmpfsOptions.SizeBytes":             code("SizeBytes"),
	"TmpfsOptions.Mode":                  code(".Mode"),
	"TmpfsOptions.Options":               code(".Options"),

	"LogConfig.Type":                  code("LogConfig.Type"),
	"LogConfig.Config":                code("c.Config"),
	"RestartPolicy.Name":              code("p.Name"),
	"RestartPolicy.MaximumRetryCount": code("p.MaximumRetryCount"),
}

func TestEveryFieldHasAFate(t *testing.T) {
	left := map[string]bool{}
	for name := range fates {
		left[name] = true
	}
	for _, v := range []any{
		container.Config{}, container.HealthConfig{}, container.HostConfig{}, container.Resources{}, container.LogConfig{}, container.RestartPolicy{},
		mount.Mount{}, mount.BindOptions{}, mount.VolumeOptions{}, mount.TmpfsOptions{},
	} {
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Anonymous {
				continue // Resources, by itself
			}
			name := typ.Name() + "." + f.Name
			if _, ok := fates[name]; !ok {
				t.Errorf("%s is neither honoured nor refused: say in fates what is done with it", name)
			}
			delete(left, name)
		}
	}
	for name := range left {
		t.Errorf("%s is not in the API", name)
	}
	source := engineSource(t)
	for name, f := range fates {
		in := plain()
		in.Block = map[string]Number{"/dev/sda": {8, 0}}
		in.Init = "/bin/init"
		in.Host.SwapLimit = true
		switch {
		case f.built != nil:
			before := buildJSON(t, in)
			f.built(in.Config, in.HostConfig)
			if _, err := Validate(in.Config, in.HostConfig, in.Host); err != nil {
				t.Errorf("%s: %v", name, err)
			} else if buildJSON(t, in) == before {
				t.Errorf("%s changes nothing", name)
			}
		case f.refused != nil:
			f.refused(in.Config, in.HostConfig)
			if _, err := Validate(in.Config, in.HostConfig, in.Host); err == nil || !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) {
				t.Errorf("%s is not refused: %v", name, err)
			}
		case f.code != "":
			if !regexp.MustCompile(regexp.QuoteMeta(f.code) + `\b`).MatchString(source) {
				t.Errorf("%s: nothing reads %s", name, f.code)
			}
		case f.shown == "":
			t.Errorf("%s has no fate", name)
		}
	}
}

func buildJSON(t *testing.T, in Input) string {
	t.Helper()
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// engineSource is the code of the engine's packages.
func engineSource(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("../*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") || strings.HasSuffix(f, "/validate.go") {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

func TestLogAttributes(t *testing.T) {
	s := LogSubject{
		FullID: strings.Repeat("0123456789abcdef", 4), Name: "web", ImageFullID: "sha256:" + strings.Repeat("ab", 32),
		Config: &container.Config{Image: "nginx", Cmd: []string{"serve", "-v"}, Env: []string{"A=1", "B=2", "OTHER=3"}, Labels: map[string]string{"team": "x", "tier": "y", "z": "w"}},
	}
	for _, c := range []struct{ options, want string }{
		{"", ""},
		{"tag={{.Name}}/{{.ID}}", `{"tag":"web/0123456789ab"}`},
		{"tag={{.ImageName}} {{.ImageID}} {{.Command}} {{.DaemonName}}", `{"tag":"nginx abababababab serve -v docker"}`},
		{"labels=team,missing;env=B", `{"B":"2","team":"x"}`},
		{"labels-regex=^t;env-regex=^[AB]$", `{"A":"1","B":"2","team":"x","tier":"y"}`},
	} {
		lc := container.LogConfig{Type: "json-file", Config: map[string]string{}}
		for o := range strings.SplitSeq(c.options, ";") {
			if k, v, ok := strings.Cut(o, "="); ok {
				lc.Config[k] = v
			}
		}
		if _, err := Log(lc, ""); err != nil {
			t.Errorf("%s: %v", c.options, err)
		}
		got, err := LogAttributes(lc, s)
		data, _ := json.Marshal(got)
		if err != nil || string(data) != c.want && !(c.want == "" && got == nil) {
			t.Errorf("%s: %s %v", c.options, data, err)
		}
	}
	for typ, options := range map[string]map[string]string{
		"json-file": {"tag": "{{.Nope}}"}, "json-file ": {"env-regex": "("}, "local": {"labels": "a"}, "local ": {"mode": "odd"}, "local  ": {"max-buffer-size": "1m"},
	} {
		if _, err := Log(container.LogConfig{Type: strings.TrimSpace(typ), Config: options}, ""); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s %v: %v", typ, options, err)
		}
	}
	l, err := Log(container.LogConfig{Type: "local", Config: map[string]string{"mode": "non-blocking", "max-buffer-size": "4m"}}, "/x")
	if err != nil || l.MaxSize != 20_000_000 || l.MaxFiles != 5 || !l.Compress || !l.NonBlocking || l.MaxBuffer != 4<<20 || l.Path != "/x" {
		t.Errorf("the driver local by default: %+v %v", l, err)
	}
}
