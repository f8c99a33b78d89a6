package plan

import (
	"encoding/json"
	"fmt"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// compileHooks puts the container's hooks where the spec has them: when everything is in place, before the root changes.
func compileHooks(p *Plan, spec *specs.Spec) {
	h := spec.Hooks
	if h == nil {
		h = &specs.Hooks{}
	}
	if n := len(h.Prestart) + len(h.CreateRuntime) + len(spec.Linux.NetDevices); n != 0 { //nolint:staticcheck // deprecated, still in the spec
		why := "hooks.createRuntime"
		if len(spec.Linux.NetDevices) != 0 {
			why = "linux.netDevices"
		}
		p.add(Step{Op: OpRuntime, Why: why})
	}
	p.hooks("createContainer", h.CreateContainer)
}

func (p *Plan) hooks(kind string, hooks []specs.Hook) {
	for i, h := range hooks {
		timeout := uint64(0)
		if h.Timeout != nil {
			timeout = uint64(*h.Timeout)
		}
		args := h.Args
		if len(args) == 0 {
			args = []string{h.Path}
		}
		p.add(Step{Op: OpHook, Why: fmt.Sprintf("hooks.%s[%d]", kind, i), Type: kind, Path: h.Path, List: args, Env: h.Env, Num: []uint64{timeout}})
	}
}

// checkHooks finds what no hook can have.
func checkHooks(h *specs.Hooks) error {
	if h == nil {
		return nil
	}
	for _, l := range [...]struct {
		kind  string
		hooks []specs.Hook
	}{
		{"prestart", h.Prestart}, {"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer}, //nolint:staticcheck // deprecated, still in the spec
		{"startContainer", h.StartContainer}, {"poststart", h.Poststart}, {"poststop", h.Poststop},
	} {
		for i, hook := range l.hooks {
			if !path.IsAbs(hook.Path) {
				return fault.Invalid("hooks.%s[%d].path %q is not absolute", l.kind, i, hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return fault.Invalid("hooks.%s[%d].timeout %d is not above 0", l.kind, i, *hook.Timeout)
			}
		}
	}
	return nil
}

// SetState gives the hooks that the process runs itself the container's state. Its pid is left
// out: the hook is told the one that the container's processes see.
func (p *Plan) SetState(s specs.State) error {
	s.Pid = 0
	for i := range p.Steps {
		st := &p.Steps[i]
		if st.Op != OpHook {
			continue
		}
		s.Status = specs.StateCreating
		if st.Type == "startContainer" {
			s.Status = specs.StateCreated
		}
		b, err := json.Marshal(s)
		if err != nil {
			return fault.Invalid("the container's state: %w", err)
		}
		st.Data = "," + string(b[1:])
	}
	return nil
}

// needsRuntime names the field for which the process needs more of the runtime than to be started, "" if there is none.
func needsRuntime(spec *specs.Spec) string {
	if h := spec.Hooks; h != nil {
		for _, l := range [...]struct {
			kind  string
			hooks []specs.Hook
		}{
			{"prestart", h.Prestart}, {"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer}, //nolint:staticcheck // deprecated, still in the spec
			{"startContainer", h.StartContainer}, {"poststart", h.Poststart}, {"poststop", h.Poststop},
		} {
			if len(l.hooks) != 0 {
				return "hooks." + l.kind
			}
		}
	}
	if len(spec.Linux.NetDevices) != 0 {
		return "linux.netDevices"
	}
	if s := spec.Linux.Seccomp; s != nil && s.ListenerPath != "" {
		return "linux.seccomp.listenerPath"
	}
	return ""
}
