package seccomp

import specs "github.com/opencontainers/runtime-spec/specs-go"

// Actions are the actions that a profile may use.
func Actions() []string {
	return []string{
		string(specs.ActAllow), string(specs.ActErrno), string(specs.ActKill), string(specs.ActKillProcess), string(specs.ActKillThread),
		string(specs.ActLog), string(specs.ActNotify), string(specs.ActTrace), string(specs.ActTrap),
	}
}

// Operators are the comparisons that a profile may use.
func Operators() []string {
	return []string{
		string(specs.OpEqualTo), string(specs.OpGreaterEqual), string(specs.OpGreaterThan), string(specs.OpLessEqual),
		string(specs.OpLessThan), string(specs.OpMaskedEqual), string(specs.OpNotEqual),
	}
}

// Archs are the architectures with a table.
func Archs() []string {
	var names []string
	for _, a := range tables() {
		names = append(names, string(a.name))
	}
	return names
}

// Flags are the filter flags that a profile may use.
func Flags() []string {
	return []string{string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagSpecAllow), string(specs.LinuxSeccompFlagWaitKillableRecv), "SECCOMP_FILTER_FLAG_TSYNC"}
}
