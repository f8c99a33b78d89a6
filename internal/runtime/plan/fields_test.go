package plan

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Every field of the spec has a fate, and this test has a list of them that can't be
// incomplete: the fields come from the spec's own types. A field either
//
//   - changes the plan: a spec that uses it compiles to another plan, or to an error, once it is taken out, or
//   - is honoured elsewhere: elsewhere names the test that shows it, or
//   - is refused by its name: refusedFields.
//
// What each does to a container is shown by the tests in launch and by the clauses of test/oci.
func TestEveryFieldHasAFate(t *testing.T) {
	want := map[string]bool{}
	walkType(reflect.TypeFor[specs.Spec](), "", want)
	found := map[string]bool{}
	host := v1
	host.AppArmor, host.SELinux = true, true
	for i, make := range fullSpecs() {
		full := compiled(t, make(), host)
		if bytes.HasPrefix(full, []byte("error")) {
			t.Fatalf("full spec %d: %s", i, full)
		}
		for _, path := range setFields(make()) {
			if found[path] {
				continue
			}
			s := make()
			clearField(reflect.ValueOf(s).Elem(), "", path)
			if !bytes.Equal(compiled(t, s, host), full) {
				found[path] = true
			}
		}
	}
	for path, evidence := range elsewhere {
		if !want[path] && !isPrefix(path, want) {
			t.Errorf("elsewhere has %s, which the spec does not", path)
		}
		if !shown(t, evidence) {
			t.Errorf("%s is said to be shown by %s, which is not there", path, evidence)
		}
	}
	for path := range want {
		fates := 0
		if found[path] {
			fates++
		}
		if covered(path, elsewhere) {
			fates++
		}
		if _, ok := refusedFields[path]; ok || covered(path, refusedFields) {
			fates++
			if found[path] {
				t.Errorf("%s is refused and has an effect", path)
			}
		}
		if fates == 0 {
			t.Errorf("%s is silently ignored", path)
		}
	}
	for path := range refusedFields {
		if !want[path] && !isPrefix(path, want) {
			t.Errorf("refusedFields has %s, which the spec does not", path)
		}
	}
}

func TestRefusedFields(t *testing.T) {
	for path, change := range refusedFields {
		s := base()
		set := changes[change]
		if set == nil {
			t.Fatalf("%s: no change %s", path, change)
		}
		set(s)
		if _, err := CompileWith(s, overlay, v1, Options{Runtime: true}); !errdefs.IsNotImplemented(err) || !strings.HasPrefix(err.Error(), path+" ") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// refusedFields are refused, with all below them.
var refusedFields = map[string]string{
	"linux.intelRdt": "intelRdt", "linux.personality.flags": "flags", "process.commandLine": "commandLine", "process.user.username": "username",
	"windows": "windows", "solaris": "solaris", "vm": "vm", "zos": "zos", "freebsd": "freebsd",
}

var changes = map[string]func(s *specs.Spec){
	"intelRdt": func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} },
	"flags": func(s *specs.Spec) {
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"x"}}
	},
	"commandLine": func(s *specs.Spec) { s.Process.CommandLine = "x" },
	"username":    func(s *specs.Spec) { s.Process.User.Username = "x" },
	"windows":     func(s *specs.Spec) { s.Windows = &specs.Windows{} },
	"solaris":     func(s *specs.Spec) { s.Solaris = &specs.Solaris{} },
	"vm":          func(s *specs.Spec) { s.VM = &specs.VM{} },
	"zos":         func(s *specs.Spec) { s.ZOS = &specs.ZOS{} },
	"freebsd":     func(s *specs.Spec) { s.FreeBSD = &specs.FreeBSD{} },
}

// elsewhere are the fields that are no matter of the plan, each with what shows it: a clause of test/oci, or a test in a folder.
var elsewhere = map[string]string{
	"ociVersion":                     "clause kernel/version-of-the-spec",
	"annotations":                    "clause process/annotations-in-state",
	"hooks.prestart":                 "clause hooks/order",
	"hooks.createRuntime":            "clause hooks/order",
	"hooks.poststart":                "clause hooks/order",
	"hooks.poststop":                 "clause hooks/order",
	"linux.netDevices{}.name":        "clause kernel/net-devices",
	"linux.resources":                "../cgroup TestEveryResource",
	"linux.resources.devices":        "../cgroup TestDevices",
	"linux.seccomp.listenerPath":     "clause seccomp/notify",
	"linux.seccomp.listenerMetadata": "clause seccomp/notify",
}

func shown(t *testing.T, evidence string) bool {
	dir, name, _ := strings.Cut(evidence, " ")
	needle := "func " + name + "("
	if dir == "clause" {
		dir, needle = "../../../test/oci", `"`+name+`"`
	}
	files, err := filepath.Glob(dir + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), needle) {
			return true
		}
	}
	return false
}

func covered(path string, table map[string]string) bool {
	for p := range table {
		if path == p || strings.HasPrefix(path, p+".") || strings.HasPrefix(path, p+"[]") || strings.HasPrefix(path, p+"{}") {
			return true
		}
	}
	return false
}

func isPrefix(path string, want map[string]bool) bool {
	for w := range want {
		if covered(w, map[string]string{path: ""}) {
			return true
		}
	}
	return false
}

// compiled is all that compiling says of a spec, as a container and as an exec in it.
func compiled(t *testing.T, s *specs.Spec, host Host) []byte {
	t.Helper()
	var b bytes.Buffer
	p, err := CompileWith(s, nil, host, Options{Runtime: true})
	if err != nil {
		return []byte("error: " + err.Error())
	}
	b.WriteString(p.String())
	b.Write(p.Marshal())
	if p, err = CompileExec(s, s.Process, host); err != nil {
		return []byte("error of exec: " + err.Error())
	}
	b.WriteString(p.String())
	b.Write(p.Marshal())
	return b.Bytes()
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// walkType collects the leaves of a type: "process.rlimits[].type", "linux.sysctl{}".
func walkType(t reflect.Type, path string, into map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer:
		walkType(t.Elem(), path, into)
	case reflect.Slice:
		if deref(t.Elem()).Kind() == reflect.Struct {
			walkType(t.Elem(), path+"[]", into)
			return
		}
		into[path] = true
	case reflect.Map:
		if deref(t.Elem()).Kind() == reflect.Struct {
			walkType(t.Elem(), path+"{}", into)
			return
		}
		into[path] = true
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Anonymous && jsonName(f) == "" {
				walkType(f.Type, path, into)
				continue
			}
			below := strings.TrimPrefix(path+"."+jsonName(f), ".")
			if platform := f.Tag.Get("platform"); path == "" && platform != "" && !slices.Contains(strings.Split(platform, ","), "linux") {
				into[below] = true // a whole section for another system
				continue
			}
			walkType(f.Type, below, into)
		}
	default:
		into[path] = true
	}
}

func deref(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// setFields are the leaves that a spec uses.
func setFields(s *specs.Spec) []string {
	var paths []string
	visit(reflect.ValueOf(s).Elem(), "", func(path string, v reflect.Value) bool {
		if !v.IsZero() && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
		return false
	})
	slices.Sort(paths)
	return paths
}

// clearField sets the leaf to nothing, in every element of the lists that it is in.
func clearField(v reflect.Value, at, path string) {
	visit(v, at, func(p string, v reflect.Value) bool {
		if p == path {
			v.SetZero()
			return true
		}
		return false
	})
}

// visit calls each leaf. Elements of maps are written back if leaf says that it changed.
func visit(v reflect.Value, path string, leaf func(path string, v reflect.Value) bool) (changed bool) {
	t := v.Type()
	switch t.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return false
		}
		if deref(t).Kind() != reflect.Struct {
			return leaf(path, v)
		}
		return visit(v.Elem(), path, leaf)
	case reflect.Slice:
		if deref(t.Elem()).Kind() != reflect.Struct {
			return leaf(path, v)
		}
		for i := range v.Len() {
			changed = visit(v.Index(i), path+"[]", leaf) || changed
		}
		return changed
	case reflect.Map:
		if deref(t.Elem()).Kind() != reflect.Struct {
			return leaf(path, v)
		}
		for _, k := range v.MapKeys() {
			e := reflect.New(t.Elem()).Elem()
			e.Set(v.MapIndex(k))
			if visit(e, path+"{}", leaf) {
				v.SetMapIndex(k, e)
				changed = true
			}
		}
		return changed
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			below := strings.TrimPrefix(path+"."+jsonName(f), ".")
			if f.Anonymous && jsonName(f) == "" {
				below = path
			}
			changed = visit(v.Field(i), below, leaf) || changed
		}
		return changed
	}
	return leaf(path, v)
}

// fullSpecs use every field between them; some fields exclude each other.
func fullSpecs() []func() *specs.Spec {
	return []func() *specs.Spec{fullSpec, fullSpecInUser, fullSpecDeadline}
}

func fullSpec() *specs.Spec {
	s := base()
	s.Version, s.Hostname, s.Domainname = specs.Version, "box", "example"
	s.Root = &specs.Root{Path: "/root", Readonly: true}
	own(s, specs.UTSNamespace, specs.IPCNamespace, specs.TimeNamespace)
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/run/netns/x"})
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/hooks/" + name, Args: []string{name, "a"}, Env: []string{"A=1"}, Timeout: ptr(5)}}
	}
	s.Hooks = &specs.Hooks{Prestart: hook("pre"), CreateRuntime: hook("cr"), CreateContainer: hook("cc"), StartContainer: hook("sc"), Poststart: hook("ps"), Poststop: hook("pp")} //nolint:staticcheck // deprecated, still in the spec
	p := s.Process
	p.Terminal, p.ConsoleSize, p.Cwd = true, &specs.Box{Height: 24, Width: 80}, "/work"
	p.User = specs.User{UID: 5, GID: 6, Umask: ptr(uint32(0o27)), AdditionalGids: []uint32{7}}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}, Inheritable: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"}}
	p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU", Soft: 5, Hard: 9}}
	p.NoNewPrivileges, p.ApparmorProfile, p.SelinuxLabel, p.OOMScoreAdj = true, "docker-default", "a:b:c:s0", ptr(100)
	p.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Nice: 3, Priority: 4, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 3}
	p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0-1", Final: "1"}
	ids := []specs.LinuxIDMapping{{ContainerID: 1, HostID: 1000, Size: 10}}
	s.Mounts = []specs.Mount{{Destination: "/a", Type: "tmpfs", Source: "named", Options: []string{"ro"}},
		{Destination: "/b", Source: "/h/b", Options: []string{"rbind", "idmap"}, UIDMappings: ids, GIDMappings: ids}}
	l := s.Linux
	l.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	l.CgroupsPath = "/tare/x"
	l.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: ptr(os.FileMode(0o600)), UID: ptr(uint32(1)), GID: ptr(uint32(2))}}
	l.NetDevices = map[string]specs.LinuxNetDevice{"eth7": {Name: "eth0"}}
	l.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: ptr(uint(7)), Architectures: []specs.Arch{specs.ArchX86}, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog},
		ListenerPath: "/run/agent.sock", ListenerMetadata: "x", Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read"}, Action: specs.ActNotify},
			{Names: []string{"write"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(9)), Args: []specs.LinuxSeccompArg{{Index: 1, Value: 3, ValueTwo: 1, Op: specs.OpMaskedEqual}}}}}
	l.RootfsPropagation, l.MaskedPaths, l.ReadonlyPaths, l.MountLabel = "shared", []string{"/proc/kcore"}, []string{"/proc/sys"}, "a:b:d:s0"
	l.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	l.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	l.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 5, Nanosecs: 7}}
	return s
}

func fullSpecInUser() *specs.Spec {
	s := base()
	s.Root = &specs.Root{Path: "/root"}
	own(s, specs.UserNamespace)
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 10}, {ContainerID: 20, HostID: 3000, Size: 10}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 2000, Size: 10}, {ContainerID: 20, HostID: 4000, Size: 10}}
	return s
}

func fullSpecDeadline() *specs.Spec {
	s := base()
	s.Root = &specs.Root{Path: "/root"}
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 1e6, Deadline: 2e6, Period: 3e6}
	return s
}

// The walk itself finds what it should.
func TestWalk(t *testing.T) {
	want := map[string]bool{}
	walkType(reflect.TypeFor[specs.Spec](), "", want)
	for _, path := range []string{"process.rlimits[].type", "linux.sysctl", "linux.resources.blockIO.weightDevice[].major", "hooks.poststop[].timeout", "windows", "linux.timeOffsets{}.secs", "mounts[].uidMappings[].size"} {
		if !want[path] {
			t.Errorf("%s is not found", path)
		}
	}
	if len(want) < 150 {
		t.Error(fmt.Sprint("only ", len(want), " fields"))
	}
}
