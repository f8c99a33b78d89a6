package execute

import (
	"os"
	"strconv"
	"strings"
)

// capabilities are the kernel's, by number (linux/capability.h).
var capabilities = strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
	net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice
	sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm
	block_suspend audit_read perfmon bpf checkpoint_restore`)

// everyCapability lists those that this kernel has.
func everyCapability() (out []string) {
	last := len(capabilities) - 1
	if data, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
			last = min(last, n)
		}
	}
	for _, c := range capabilities[:last+1] {
		out = append(out, "CAP_"+strings.ToUpper(c))
	}
	return out
}
