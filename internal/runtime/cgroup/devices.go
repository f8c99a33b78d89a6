package cgroup

import (
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

// everyContainers come after a container's own rules: the devices that every
// container has, its ptys, and mknod, which opens nothing.
var everyContainers = func() []specs.LinuxDeviceCgroup {
	n := func(v int64) *int64 { return &v }
	return []specs.LinuxDeviceCgroup{
		{Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "b", Access: "m"},
		{Allow: true, Type: "c", Major: n(1), Minor: n(3), Access: "rwm"}, {Allow: true, Type: "c", Major: n(1), Minor: n(5), Access: "rwm"},
		{Allow: true, Type: "c", Major: n(1), Minor: n(7), Access: "rwm"}, {Allow: true, Type: "c", Major: n(1), Minor: n(8), Access: "rwm"},
		{Allow: true, Type: "c", Major: n(1), Minor: n(9), Access: "rwm"}, {Allow: true, Type: "c", Major: n(5), Minor: n(0), Access: "rwm"},
		{Allow: true, Type: "c", Major: n(5), Minor: n(2), Access: "rwm"}, {Allow: true, Type: "c", Major: n(136), Access: "rwm"},
	}
}()

func withEveryContainers(rules []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	if last := rules[len(rules)-1]; last.Allow && (last.Type == "" || last.Type == "a") {
		return rules // everything is allowed already
	}
	return append(rules[:len(rules):len(rules)], everyContainers...)
}

// devices sets a new group's rules, in their order. Without any, everything that the parent may is allowed.
func (g *Group) devices(rules []specs.LinuxDeviceCgroup) error {
	if len(rules) == 0 {
		return nil
	}
	if g.host.V2 {
		return devicesV2(g.dir(""), rules)
	}
	dir := g.dir("devices")
	if dir == "" {
		return fault.Invalid("this machine has no devices cgroup controller")
	}
	// The kernel takes one rule a write, but many writes to an open file.
	var open [2]*os.File
	defer func() {
		for _, f := range open {
			if f != nil {
				f.Close()
			}
		}
	}()
	for _, r := range withEveryContainers(rules) {
		text, err := deviceRule(r)
		if err != nil {
			return err
		}
		file, at := "devices.deny", 0
		if r.Allow {
			file, at = "devices.allow", 1
		}
		if open[at] == nil {
			if open[at], err = os.OpenFile(dir+"/"+file, os.O_WRONLY, 0); err != nil {
				return fault.Internal("cannot open the rules of devices: %w", err)
			}
		}
		if _, err := open[at].WriteString(text); err != nil {
			return fault.Internal("cannot write %s to %s/%s: %w", text, dir, file, err)
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
