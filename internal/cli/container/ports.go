package container

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// parsePorts reads --publish ([[ip:][host[-end]]:]container[-end][/proto], or the
// published=…,target=… form) and --expose.
func parsePorts(publish, expose []string) (network.PortMap, network.PortSet, error) {
	ports, exposed := network.PortMap{}, network.PortSet{}
	for _, p := range publish {
		if err := publishOne(p, ports, exposed); err != nil {
			return nil, nil, err
		}
	}
	for _, e := range expose {
		if strings.Contains(e, ":") {
			return nil, nil, fmt.Errorf("invalid port format for --expose: %s", e)
		}
		r, err := network.ParsePortRange(e)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid range format for --expose: %w", err)
		}
		for port := range r.All() {
			exposed[port] = struct{}{}
		}
	}
	return ports, exposed, nil
}

func publishOne(spec string, ports network.PortMap, exposed network.PortSet) error {
	invalid := func(why string) error { return fmt.Errorf("invalid publish opts format %q: %s", spec, why) }
	var ip netip.Addr
	var hostPart, target string
	if strings.Contains(spec, "=") {
		proto := "tcp"
		for field := range strings.SplitSeq(spec, ",") {
			k, v, ok := strings.Cut(field, "=")
			switch {
			case !ok:
				return invalid("invalid field " + field)
			case k == "target":
				target = v
			case k == "published":
				hostPart = v
			case k == "protocol":
				proto = v
			case k == "mode":
			default:
				return invalid("invalid field key " + k)
			}
		}
		target += "/" + proto
	} else {
		rest := spec
		if strings.HasPrefix(rest, "[") {
			a, after, ok := strings.Cut(rest[1:], "]:")
			if !ok {
				return invalid("missing ] of the address")
			}
			parsed, err := netip.ParseAddr(a)
			if err != nil {
				return fmt.Errorf("invalid IP address: %s", a)
			}
			ip, rest = parsed, after
			if !strings.Contains(rest, ":") {
				rest = ":" + rest
			}
		}
		parts := strings.Split(rest, ":")
		target = parts[len(parts)-1]
		if len(parts) >= 2 {
			hostPart = parts[len(parts)-2]
		}
		if len(parts) == 3 && parts[0] != "" {
			parsed, err := netip.ParseAddr(parts[0])
			if err != nil {
				return fmt.Errorf("invalid IP address: %s", parts[0])
			}
			ip = parsed
		}
		if len(parts) > 3 {
			return invalid("too many colons")
		}
	}
	to, err := network.ParsePortRange(target)
	if err != nil {
		return fmt.Errorf("invalid containerPort: %s", target)
	}
	switch to.Proto() {
	case network.TCP, network.UDP, network.SCTP:
	default:
		return fmt.Errorf("invalid proto: %s", to.Proto())
	}
	size := int(to.End()) - int(to.Start())
	var from network.PortRange
	if hostPart != "" {
		if from, err = network.ParsePortRange(hostPart); err != nil {
			return fmt.Errorf("invalid hostPort: %s", hostPart)
		}
	}
	hostSize := int(from.End()) - int(from.Start())
	if hostPart != "" && hostSize != size && size != 0 {
		return fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", target, hostPart)
	}
	i := 0
	for port := range to.All() {
		b := network.PortBinding{HostIP: ip}
		switch {
		case hostPart == "":
		case size == 0 && hostSize > 0: // any free one of the range
			b.HostPort = hostPart
		default:
			b.HostPort = strconv.Itoa(int(from.Start()) + i)
		}
		ports[port] = append(ports[port], b)
		exposed[port] = struct{}{}
		i++
	}
	return nil
}
