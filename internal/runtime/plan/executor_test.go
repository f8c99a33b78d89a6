package plan

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/runtime"
	"tare/internal/runtime/defaults"
)

// The plan says by itself what it has to be executed by.
func TestExecutor(t *testing.T) {
	no := uint64(1)
	for name, c := range map[string]struct {
		change func(s *specs.Spec)
		exec   bool
		want   Executor
		why    string
	}{
		"default":   {nil, false, Interpreter, ""},
		"exec":      {nil, true, Interpreter, ""},
		"hook":      {func(s *specs.Spec) { s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/x"}}} }, false, Stage, "hooks.startContainer[0]"},
		"scheduler": {func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch} }, false, Stage, "process.scheduler"},
		"user namespace": {func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 1, Size: 9}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
		}, false, Stage, "namespaces that are entered before the process is born"},
		"joined pids": {func(s *specs.Spec) {
			s.Linux.Namespaces[0] = specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/proc/1/ns/pid"}
		}, false, Stage, "a pid namespace that is joined"},
		"process limit": {func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Soft: no, Hard: no}}
		}, true, Stage, "process.rlimits[0]"},
		"of the first": {func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Soft: no, Hard: no}}
		}, false, Interpreter, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := defaults.Spec()
			s.Process.Args = []string{"true"}
			for i, n := range s.Linux.Namespaces { // the pid namespace first
				if n.Type == specs.PIDNamespace {
					s.Linux.Namespaces[0], s.Linux.Namespaces[i] = s.Linux.Namespaces[i], s.Linux.Namespaces[0]
				}
			}
			if c.change != nil {
				c.change(s)
			}
			host := Host{Cgroup: CgroupV1, CanRaiseLimits: true}
			p, err := CompileWith(s, &runtime.Overlay{Lower: []string{"/l"}}, host, Options{Runtime: true})
			if c.exec {
				p, err = CompileExec(s, s.Process, host)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, why := p.Executor(); got != c.want || why != c.why {
				t.Errorf("%s because of %q, want %s because of %q", got, why, c.want, c.why)
			}
		})
	}
}
