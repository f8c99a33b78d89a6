package container

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

// What a flag's value may be is checked when the flag is read, so that the error names the flag.

// checked makes a parser a check.
func checked[T any](parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		_, err := parse(s)
		return err
	}
}

func checkStream(s string) error {
	switch strings.ToLower(s) {
	case "stdin", "stdout", "stderr":
		return nil
	}
	return errors.New("valid streams are STDIN, STDOUT and STDERR")
}

func checkVariable(s string) error {
	if name, _, _ := strings.Cut(s, "="); name == "" {
		return fmt.Errorf("invalid environment variable: %s", s)
	}
	return nil
}

func checkLabel(s string) error {
	if key, _, _ := strings.Cut(s, "="); key == "" {
		return fmt.Errorf("invalid label '%s': empty name", s)
	}
	return nil
}

func checkNetwork(s string) error {
	_, _, err := parseNetwork(s)
	return err
}

func checkDNS(s string) error {
	if _, err := netip.ParseAddr(s); err != nil {
		return fmt.Errorf("IP address is not correctly formatted: %s", s)
	}
	return nil
}

// checkDeviceRule wants "c|b|a MAJOR:MINOR rwm", * for any number.
func checkDeviceRule(s string) error {
	number := func(n string) bool {
		_, err := strconv.ParseUint(n, 10, 32)
		return n == "*" || err == nil
	}
	if f := strings.Fields(s); len(f) == 3 && strings.Contains("abc", f[0]) && strings.Trim(f[2], "rwm") == "" {
		if major, minor, ok := strings.Cut(f[1], ":"); ok && number(major) && number(minor) {
			return nil
		}
	}
	return fmt.Errorf("invalid device cgroup format '%s'", s)
}

// parseHost reads NAME:IP or NAME=IP, the IP also as [IP], and gives NAME:IP.
func parseHost(s string) (string, error) {
	name, ip, ok := strings.Cut(s, "=")
	if !ok {
		name, ip, ok = strings.Cut(s, ":")
	}
	if !ok || name == "" {
		return "", fmt.Errorf("bad format for add-host: %q", s)
	}
	if inner, ok := strings.CutPrefix(ip, "["); ok {
		ip = strings.TrimSuffix(inner, "]")
	}
	if _, err := netip.ParseAddr(ip); err != nil && ip != "host-gateway" {
		return "", fmt.Errorf("invalid IP address in add-host: %q", ip)
	}
	return name + ":" + ip, nil
}

// onDevice cuts /dev/NAME:VALUE.
func onDevice(s string) (device, value string, err error) {
	device, value, ok := strings.Cut(s, ":")
	if !ok {
		return "", "", fmt.Errorf("bad format: %s", s)
	}
	if !strings.HasPrefix(device, "/dev/") {
		return "", "", fmt.Errorf("bad format for device path: %s", s)
	}
	return device, value, nil
}

func parseWeight(s string) (*blkiodev.WeightDevice, error) {
	device, value, err := onDevice(s)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n > 0 && (n < 10 || n > 1000) {
		return nil, fmt.Errorf("invalid weight for device: %s", s)
	}
	return &blkiodev.WeightDevice{Path: device, Weight: uint16(n)}, nil
}

func parseBytesRate(s string) (*blkiodev.ThrottleDevice, error) {
	device, value, err := onDevice(s)
	if err != nil {
		return nil, err
	}
	n, err := units.RAMInBytes(value)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", s)
	}
	return &blkiodev.ThrottleDevice{Path: device, Rate: uint64(n)}, nil
}

func parseIORate(s string) (*blkiodev.ThrottleDevice, error) {
	device, value, err := onDevice(s)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", s)
	}
	return &blkiodev.ThrottleDevice{Path: device, Rate: n}, nil
}

// blkio fills in the limits on devices, whose flags were checked.
func (f *flags) blkio(h *container.HostConfig) {
	for _, s := range f.blkioWeightDevice {
		w, _ := parseWeight(s)
		h.BlkioWeightDevice = append(h.BlkioWeightDevice, w)
	}
	for _, l := range []struct {
		values []string
		parse  func(string) (*blkiodev.ThrottleDevice, error)
		to     *[]*blkiodev.ThrottleDevice
	}{
		{f.readBps, parseBytesRate, &h.BlkioDeviceReadBps}, {f.writeBps, parseBytesRate, &h.BlkioDeviceWriteBps},
		{f.readIOps, parseIORate, &h.BlkioDeviceReadIOps}, {f.writeIOps, parseIORate, &h.BlkioDeviceWriteIOps},
	} {
		for _, s := range l.values {
			d, _ := l.parse(s)
			*l.to = append(*l.to, d)
		}
	}
}

// namespaces refuses modes that do not exist.
func (f *flags) namespaces(h *container.HostConfig) error {
	switch {
	case !h.PidMode.Valid():
		return errors.New("--pid: invalid PID mode")
	case !h.UTSMode.Valid():
		return errors.New("--uts: invalid UTS mode")
	case !h.UsernsMode.Valid():
		return errors.New("--userns: invalid USER mode")
	case !h.CgroupnsMode.Valid():
		return errors.New("--cgroupns: invalid CGROUP mode")
	}
	return nil
}

// cpus is --cpus: a number of CPUs, kept in billionths.
type cpus int64

func (c *cpus) Type() string { return "decimal" }
func (c *cpus) String() string {
	if *c == 0 {
		return ""
	}
	return big.NewRat(int64(*c), 1e9).FloatString(3)
}

// Set reads a decimal number.
func (c *cpus) Set(s string) error {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return fmt.Errorf("failed to parse %s as a rational number", s)
	}
	nano := r.Mul(r, big.NewRat(1e9, 1))
	if !nano.IsInt() {
		return errors.New("value is too precise")
	}
	*c = cpus(nano.Num().Int64())
	return nil
}

// gpus is --gpus: "all", a number, or CSV of count, device, driver, capabilities, options.
type gpus struct{ requests []container.DeviceRequest }

func (g *gpus) Type() string   { return "gpu-request" }
func (g *gpus) String() string { return "" }

// Set reads one request.
func (g *gpus) Set(s string) error {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return err
	}
	var r container.DeviceRequest
	seen := map[string]bool{}
	for _, field := range fields {
		key, value, pair := strings.Cut(field, "=")
		if !pair {
			key, value = "count", field
		}
		if seen[key] {
			return fmt.Errorf("gpu request key '%s' can be specified only once", key)
		}
		seen[key] = true
		switch key {
		case "count":
			if r.Count = -1; value != "all" {
				if r.Count, err = strconv.Atoi(value); err != nil {
					return fmt.Errorf(`invalid count (%s): value must be either "all" or an integer: %w`, value, errors.Unwrap(err))
				}
			}
		case "device":
			r.DeviceIDs = strings.Split(value, ",")
		case "driver":
			r.Driver = value
		case "capabilities":
			r.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
		case "options":
			r.Options = map[string]string{}
			for o := range strings.SplitSeq(value, ",") {
				k, v, _ := strings.Cut(o, "=")
				r.Options[k] = v
			}
		default:
			return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
	}
	if !seen["count"] && r.DeviceIDs == nil {
		r.Count = 1
	}
	if r.Capabilities == nil {
		r.Capabilities = [][]string{{"gpu"}}
	}
	g.requests = append(g.requests, r)
	return nil
}
