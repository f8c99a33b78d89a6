package plan

import (
	"strings"

	"tare/internal/base/fault"
)

// capabilityNames in the kernel's numbering (linux/capability.h).
var capabilityNames = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

var capabilityNumbers = func() map[string]int {
	m := make(map[string]int, len(capabilityNames))
	for i, n := range capabilityNames {
		m["CAP_"+n] = i
	}
	return m
}()

// capMask turns names into bits. Bits that the host's kernel or the runtime itself lacks are left out when they are set.
func capMask(field string, names []string) (uint64, error) {
	var mask uint64
	for _, n := range names {
		bit, ok := capabilityNumbers[strings.ToUpper(n)]
		if !ok {
			return 0, fault.Invalid("%s: unknown capability %q", field, n)
		}
		mask |= 1 << bit
	}
	return mask, nil
}

func capNames(mask uint64) string {
	var have []string
	for i, n := range capabilityNames {
		if mask&(1<<i) != 0 {
			have = append(have, n)
		}
	}
	switch len(have) {
	case 0:
		return "none"
	case len(capabilityNames):
		return "all"
	}
	return strings.Join(have, ",")
}
