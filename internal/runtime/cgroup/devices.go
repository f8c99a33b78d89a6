package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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

// devices sets the group's rules, in their order. Without any, everything that the parent may is allowed.
func (g *place) devices(rules []specs.LinuxDeviceCgroup, fresh bool) error {
	for _, r := range rules {
		if _, err := deviceRule(r); err != nil {
			return err
		}
	}
	if dir, ok := g.host.Controllers["devices"]; ok {
		return g.devicesV1(dir+g.path, withEveryContainers(rules), fresh)
	}
	dir := g.v2()
	if dir == "" {
		return fault.Invalid("this machine has no devices cgroup controller")
	}
	return devicesV2(dir, rules)
}

// devicesV1 writes the rules to a new group one by one. In a live one, which may have groups below that
// forbid the great switch "a", and whose processes work meanwhile, only the difference is written.
func (g *place) devicesV1(dir string, rules []specs.LinuxDeviceCgroup, fresh bool) error {
	f := deviceFiles{dir: dir}
	defer f.close()
	if fresh {
		for _, r := range rules {
			text, err := deviceRule(r)
			if err == nil {
				err = f.write(r.Allow, text)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	want := decide(rules)
	now, err := readDevices(dir)
	if err != nil {
		return err
	}
	if want.all || now.all {
		// The kernel does not tell what it forbids where it allows the rest, so that begins anew; and from all to some
		// goes by way of nothing, which nobody should see.
		if !want.all && !g.Frozen() {
			if err := g.Freeze(); err == nil {
				defer g.Thaw()
			}
		}
		// Groups below are in the way of that, and removed ones for a moment still.
		for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
			err := f.write(want.all, "a")
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EINVAL) || time.Now().After(deadline) {
				return err
			}
			if names, _ := g.Children(); len(names) > 0 {
				return fault.Conflict("cannot change the devices of cgroup %s as a whole: it has the groups %v below it: %w", g.path, names, err)
			}
		}
		for _, at := range want.sorted() {
			if err := f.write(!want.all, at.rule(want.some[at])); err != nil {
				return err
			}
		}
		return nil
	}
	for _, at := range want.sorted() {
		if more := want.some[at] &^ now.some[at]; more != 0 {
			if err := f.write(true, at.rule(more)); err != nil {
				return err
			}
		}
	}
	for _, at := range now.sorted() {
		if less := now.some[at] &^ want.some[at]; less != 0 {
			if err := f.write(false, at.rule(less)); err != nil {
				return err
			}
		}
	}
	return nil
}

// deviceFiles are devices.deny and devices.allow: the kernel takes one rule a write, but many writes to an open file.
type deviceFiles struct {
	dir  string
	open [2]*os.File
}

func (d *deviceFiles) write(allow bool, rule string) (err error) {
	file, at := "devices.deny", 0
	if allow {
		file, at = "devices.allow", 1
	}
	if d.open[at] == nil {
		if d.open[at], err = os.OpenFile(path.Join(d.dir, file), os.O_WRONLY, 0); err != nil {
			return fault.Internal("cannot open the rules of devices: %w", err)
		}
	}
	if _, err := d.open[at].WriteString(rule); err != nil {
		return fault.Internal("cannot write %s to %s: %w", rule, path.Join(d.dir, file), err)
	}
	return nil
}

func (d *deviceFiles) close() {
	for _, f := range d.open {
		if f != nil {
			f.Close()
		}
	}
}

// deviceSet is what rules come to, in the kernel's own form: all or nothing, but some.
type deviceSet struct {
	all  bool
	some map[deviceAt]access // exceptions: forbidden if all, else allowed
}

// deviceAt is a device, or many: -1 is any number.
type deviceAt struct {
	kind         string // "b" or "c"
	major, minor int64
}

type access uint8 // bits of "rwm", r the lowest

func accessOf(s string) (a access) {
	for i, c := range "rwm" {
		if s == "" || strings.ContainsRune(s, c) {
			a |= 1 << i
		}
	}
	return a
}

func (a access) String() string {
	s := ""
	for i, c := range "rwm" {
		if a&(1<<i) != 0 {
			s += string(c)
		}
	}
	return s
}

func (d deviceAt) rule(a access) string {
	return d.kind + " " + star(&d.major) + ":" + star(&d.minor) + " " + a.String()
}

func (s deviceSet) sorted() []deviceAt {
	return slices.SortedFunc(maps.Keys(s.some), func(a, b deviceAt) int { return strings.Compare(a.rule(0), b.rule(0)) })
}

// decide applies rules in order as the kernel's devices controller does.
func decide(rules []specs.LinuxDeviceCgroup) deviceSet {
	s := deviceSet{all: true, some: map[deviceAt]access{}}
	for _, r := range rules {
		kind := r.Type
		switch kind {
		case "", "a":
			s.all = r.Allow
			clear(s.some)
			continue
		case "u":
			kind = "c"
		}
		at := deviceAt{kind, numberOrAny(r.Major), numberOrAny(r.Minor)}
		if r.Allow != s.all {
			s.some[at] |= accessOf(r.Access)
		} else if s.some[at] &^= accessOf(r.Access); s.some[at] == 0 {
			delete(s.some, at)
		}
	}
	return s
}

func numberOrAny(n *int64) int64 {
	if n == nil || *n < 0 {
		return -1
	}
	return *n
}

// readDevices is what devices.list says: "a *:* rwm" for all, else lines as "c 1:3 rw".
func readDevices(dir string) (deviceSet, error) {
	b, err := os.ReadFile(path.Join(dir, "devices.list"))
	if err != nil {
		return deviceSet{}, fault.Internal("cannot read the rules of devices: %w", err)
	}
	s := deviceSet{some: map[deviceAt]access{}}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		if f[0] == "a" {
			s.all = true
			continue
		}
		major, minor, _ := strings.Cut(f[1], ":")
		at := deviceAt{kind: f[0], major: -1, minor: -1}
		if n, err := strconv.ParseInt(major, 10, 64); err == nil {
			at.major = n
		}
		if n, err := strconv.ParseInt(minor, 10, 64); err == nil {
			at.minor = n
		}
		s.some[at] |= accessOf(f[2])
	}
	return s, nil
}

// deviceAllow is one entry of systemd's DeviceAllow: a path or a class, and what is allowed.
type deviceAllow struct{ Path, Access string }

// systemd is a set with exceptions that are allowed, in its words (systemd.resource-control(5), DeviceAllow=).
// "char-*" is any of a type; of a major alone it knows names only, so these go by the name in /proc/devices.
func (s deviceSet) systemd() []deviceAllow {
	list := []deviceAllow{}
	for _, at := range s.sorted() {
		class := map[string]string{"c": "char", "b": "block"}[at.kind]
		switch {
		case at.major < 0 && at.minor < 0:
			list = append(list, deviceAllow{class + "-*", s.some[at].String()})
		case at.major >= 0 && at.minor >= 0:
			list = append(list, deviceAllow{fmt.Sprintf("/dev/%s/%d:%d", class, at.major, at.minor), s.some[at].String()})
		case at.major >= 0:
			if name := majorName(at.kind, at.major); name != "" {
				list = append(list, deviceAllow{class + "-" + name, s.some[at].String()})
			}
		}
	}
	return list
}

// majorName is what /proc/devices calls a major number; "" if it has no driver, so nothing to allow.
func majorName(kind string, major int64) string {
	b, _ := os.ReadFile("/proc/devices")
	section := ""
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "Character"):
			section = "c"
		case strings.HasPrefix(line, "Block"):
			section = "b"
		case len(f) == 2 && section == kind && f[0] == strconv.FormatInt(major, 10):
			return f[1]
		}
	}
	return ""
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
