package cgroup

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// everyContainers are the rules that a container's own come before: the devices
// that every container has, its ptys, and mknod, which opens nothing.
var everyContainers = []string{
	"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm",
}

// devices writes the v1 rules, in their order. Without any, everything that the parent may is allowed.
func (g *Group) devices(rules []specs.LinuxDeviceCgroup) error {
	if len(rules) == 0 {
		return nil
	}
	dir := g.dir("devices")
	if dir == "" {
		return fault.Invalid("this machine has no devices cgroup controller")
	}
	for _, r := range rules {
		text, err := deviceRule(r)
		if err != nil {
			return err
		}
		file := "devices.deny"
		if r.Allow {
			file = "devices.allow"
		}
		if err := write(dir, file, text); err != nil {
			return fault.Internal("cannot write %s to %s/%s: %w", text, dir, file, err)
		}
	}
	if last := rules[len(rules)-1]; last.Allow && (last.Type == "" || last.Type == "a") {
		return nil
	}
	for _, text := range everyContainers {
		if err := write(dir, "devices.allow", text); err != nil {
			return fault.Internal("cannot write %s to %s/devices.allow: %w", text, dir, err)
		}
	}
	return nil
}

// deviceRule is a rule as devices.allow takes it (Documentation/admin-guide/cgroup-v1/devices.rst).
func deviceRule(r specs.LinuxDeviceCgroup) (string, error) {
	kind := r.Type
	switch kind {
	case "", "a":
		// "a" takes no numbers: the kernel would ignore them.
		if r.Major != nil && *r.Major >= 0 || r.Minor != nil && *r.Minor >= 0 {
			return "", fault.Invalid("linux.resources.devices: a rule for all types can't have numbers")
		}
		kind = "a"
	case "b", "c":
	case "u":
		kind = "c"
	default:
		return "", fault.Invalid("linux.resources.devices: type %q is unknown", r.Type)
	}
	access := r.Access
	if access == "" {
		access = "rwm"
	}
	if strings.Trim(access, "rwm") != "" {
		return "", fault.Invalid("linux.resources.devices: access %q is not made of r, w and m", r.Access)
	}
	return kind + " " + star(r.Major) + ":" + star(r.Minor) + " " + access, nil
}

func star(n *int64) string {
	if n == nil || *n < 0 {
		return "*"
	}
	return strconv.FormatInt(*n, 10)
}
