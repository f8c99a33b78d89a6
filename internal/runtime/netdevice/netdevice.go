// Package netdevice moves the network devices of the host that a container asks for into its network namespace
// (config-linux.md, "Network Devices"). It speaks netlink itself: the libraries for it would double what tare-run links.
package netdevice

import (
	"encoding/binary"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Move moves devices of the host into the network namespace of a process, by the names that they
// are to have there, with their permanent global addresses, and brings them up (config-linux.md, "Network Devices").
func Move(pid int, devices map[string]specs.LinuxNetDevice) error {
	done := make(chan error)
	var inside, outside route
	ns, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Internal("cannot open the container's network namespace: %w", err)
	}
	defer unix.Close(ns)
	if outside, err = openRoute(); err != nil {
		return err
	}
	defer unix.Close(int(outside))
	go func() { // its thread ends with it; the socket stays the container's
		runtime.LockOSThread()
		err := unix.Setns(ns, unix.CLONE_NEWNET)
		if err == nil {
			inside, err = openRoute()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return fault.Internal("cannot enter the container's network namespace: %w", err)
	}
	defer unix.Close(int(inside))
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		to := devices[name].Name
		if to == "" {
			to = name
		}
		if len(to) >= unix.IFNAMSIZ || strings.ContainsAny(to, "/ \t\n:") || to == "." || to == ".." {
			return fault.Invalid("linux.netDevices %s: %q is no name for a network device", name, to)
		}
		if err := moveDevice(outside, inside, ns, name, to); err != nil {
			return fault.Invalid("linux.netDevices: cannot move %s to the container as %s: %w", name, to, err)
		}
	}
	return nil
}

func moveDevice(outside, inside route, ns int, name, to string) error {
	links, err := outside.links()
	if err != nil {
		return err
	}
	index, ok := links[name]
	if !ok {
		return unix.ENODEV
	}
	addresses, err := outside.addresses(index)
	if err != nil {
		return err
	}
	before, err := inside.links()
	if err != nil {
		return err
	}
	if _, taken := before[to]; taken {
		return unix.EEXIST
	}
	var m message
	m.link(index, 0, 0)
	m.attr(unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(ns)))
	m.attr(unix.IFLA_IFNAME, append([]byte(to), 0))
	if err := outside.ask(unix.RTM_SETLINK, 0, m, nil); err != nil {
		return err
	}
	after, err := inside.links()
	if err != nil {
		return err
	}
	moved := int32(0) // its number may have been taken there, and with a template its name is the kernel's choice
	for n, i := range after {
		if have, ok := before[n]; !ok || have != i {
			moved = i
		}
	}
	if moved == 0 {
		return unix.ENODEV
	}
	for _, a := range addresses {
		binary.NativeEndian.PutUint32(a[4:], uint32(moved))
		if err := inside.ask(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a, nil); err != nil {
			return err
		}
	}
	m = nil
	m.link(moved, unix.IFF_UP, unix.IFF_UP)
	return inside.ask(unix.RTM_NEWLINK, 0, m, nil)
}

// route is a socket to the kernel's network configuration (rtnetlink(7)).
type route int

func openRoute() (route, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	}
	return route(fd), err
}

// message is what follows a netlink header.
type message []byte

// link is a struct ifinfomsg.
func (m *message) link(index int32, flags, change uint32) {
	*m = append(*m, unix.AF_UNSPEC, 0, 0, 0)
	*m = binary.NativeEndian.AppendUint32(*m, uint32(index))
	*m = binary.NativeEndian.AppendUint32(*m, flags)
	*m = binary.NativeEndian.AppendUint32(*m, change)
}

func (m *message) attr(kind uint16, value []byte) {
	*m = binary.NativeEndian.AppendUint16(*m, uint16(4+len(value)))
	*m = binary.NativeEndian.AppendUint16(*m, kind)
	*m = append(*m, value...)
	for len(*m)%4 != 0 {
		*m = append(*m, 0)
	}
}

// attributesOf calls each with the attributes from b on.
func attributesOf(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// ask sends a request and reads to the end of its answer; each is called with every message of a dump.
func (r route) ask(kind, flags uint16, body message, each func(body []byte)) error {
	flags |= unix.NLM_F_REQUEST
	if each == nil {
		flags |= unix.NLM_F_ACK
	} else {
		flags |= unix.NLM_F_DUMP
	}
	req := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	req = binary.NativeEndian.AppendUint16(req, kind)
	req = binary.NativeEndian.AppendUint16(req, flags)
	req = append(req, make([]byte, 8)...)
	if err := unix.Sendto(int(r), append(req, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(int(r), buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				return unix.EBADMSG
			}
			switch binary.NativeEndian.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if errno := -int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])); errno != 0 {
					return unix.Errno(errno)
				}
				return nil
			default:
				if each != nil {
					each(b[unix.NLMSG_HDRLEN:size])
				}
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// links are the devices' numbers by their names.
func (r route) links() (map[string]int32, error) {
	names := map[string]int32{}
	var m message
	m.link(0, 0, 0)
	err := r.ask(unix.RTM_GETLINK, 0, m, func(b []byte) {
		if len(b) < unix.SizeofIfInfomsg {
			return
		}
		attributesOf(b[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
			if kind == unix.IFLA_IFNAME {
				names[strings.TrimRight(string(value), "\x00")] = int32(binary.NativeEndian.Uint32(b[4:]))
			}
		})
	})
	return names, err
}

// ifaProto is IFA_PROTO (linux/if_addr.h).
const ifaProto = 11

// addresses are a device's permanent addresses with global scope, as requests that add them.
func (r route) addresses(index int32) ([]message, error) {
	var list []message
	ask := make(message, unix.SizeofIfAddrmsg)
	err := r.ask(unix.RTM_GETADDR, 0, ask, func(b []byte) {
		if len(b) < unix.SizeofIfAddrmsg || int32(binary.NativeEndian.Uint32(b[4:])) != index || b[3] != unix.RT_SCOPE_UNIVERSE {
			return
		}
		flags := uint32(b[2])
		add := append(message{}, b[:unix.SizeofIfAddrmsg]...)
		attributesOf(b[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
			switch kind {
			case unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_BROADCAST, unix.IFA_RT_PRIORITY, ifaProto:
				add.attr(kind, value)
			case unix.IFA_FLAGS:
				flags = binary.NativeEndian.Uint32(value)
			}
		})
		if flags&unix.IFA_F_PERMANENT == 0 {
			return
		}
		keep := flags & (unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR)
		if b[0] == unix.AF_INET6 {
			keep |= unix.IFA_F_NODAD // it was found to be unique already
		}
		add.attr(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, keep))
		add[2] = byte(keep)
		list = append(list, add)
	})
	return list, err
}
