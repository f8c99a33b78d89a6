// Package port reserves ports of the host for containers: the engine holds a bound socket for
// each, so that whoever else wants the port learns that it is taken. The
// firewall turns packets away before they reach the socket.
package port

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
)

// Hold is a reserved port. Release it once.
type Hold struct {
	Addr  netip.Addr // unspecified: all of the host's
	Proto string     // tcp, udp or sctp
	Port  uint16
	fd    int
}

// Release lets go of the port.
func (h *Hold) Release() {
	if h.fd >= 0 {
		unix.Close(h.fd)
		h.fd = -1
	}
}

// ErrTaken is wrapped by the error about a port that is in use.
var ErrTaken = errors.New("port is already allocated")

// Number is a protocol's number.
func Number(proto string) (uint8, error) {
	switch proto {
	case "tcp":
		return unix.IPPROTO_TCP, nil
	case "udp":
		return unix.IPPROTO_UDP, nil
	case "sctp":
		return unix.IPPROTO_SCTP, nil
	}
	return 0, fault.Invalid("invalid protocol: %s", proto)
}

// Take reserves one port of an address. ErrTaken if a process has it.
func Take(proto string, addr netip.Addr, port uint16) (*Hold, error) {
	number, err := Number(proto)
	if err != nil {
		return nil, err
	}
	kind := unix.SOCK_STREAM
	if proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := socket(kind, int(number))
	if err != nil {
		return nil, fmt.Errorf("cannot reserve port %d/%s: %w", port, proto, err)
	}
	if kind == unix.SOCK_STREAM {
		// connections of an earlier owner that still wait for their end don't matter
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: addr.As4()})
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, 0)
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fault.Internal("Bind for %s failed: %w", netip.AddrPortFrom(addr, port), ErrTaken)
		}
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, fault.Internal("failed to bind host port for %s/%s: cannot assign requested address", netip.AddrPortFrom(addr, port), proto)
		}
		return nil, fault.Internal("failed to bind host port for %s/%s: %w", netip.AddrPortFrom(addr, port), proto, err)
	}
	return &Hold{Addr: addr, Proto: proto, Port: port, fd: fd}, nil
}

// socket makes one, raising the process's own limit of open files (root may) when thousands of ports are held.
func socket(kind, proto int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, proto)
	if !errors.Is(err, unix.EMFILE) {
		return fd, err
	}
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return fd, err
	}
	l.Cur *= 4
	l.Max = max(l.Max, l.Cur)
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return fd, err
	}
	return unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, proto)
}

// Picker chooses ports for those who don't ask for one, rising through the kernel's range so that a port comes back late. The zero
// value is ready to use.
type Picker struct {
	mu   sync.Mutex        // guards next
	next map[string]uint16 // by protocol
}

// Take reserves a port between first and last; both 0: of the kernel's range for local ports.
func (p *Picker) Take(proto string, addr netip.Addr, first, last uint16) (*Hold, error) {
	if first == 0 {
		return p.dynamic(proto, addr)
	}
	var err error
	for n := int(first); n <= int(last); n++ {
		var h *Hold
		if h, err = Take(proto, addr, uint16(n)); err == nil || !errors.Is(err, ErrTaken) {
			return h, err
		}
	}
	return nil, err
}

func (p *Picker) dynamic(proto string, addr netip.Addr) (*Hold, error) {
	first, last := localRange()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == nil {
		p.next = map[string]uint16{}
	}
	for range int(last) - int(first) + 1 {
		n := p.next[proto]
		if n < first || n > last {
			n = first
		}
		p.next[proto] = n + 1
		h, err := Take(proto, addr, n)
		if err == nil || !errors.Is(err, ErrTaken) {
			return h, err
		}
	}
	return nil, fault.Internal("all ports are allocated")
}

// localRange is ip(7)'s ip_local_port_range.
func localRange() (first, last uint16) {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if f := strings.Fields(string(data)); err == nil && len(f) == 2 {
		a, err1 := strconv.ParseUint(f[0], 10, 16)
		b, err2 := strconv.ParseUint(f[1], 10, 16)
		if err1 == nil && err2 == nil && a > 0 && a <= b {
			return uint16(a), uint16(b)
		}
	}
	return 49153, 65535
}

// ParseRange reads a binding's host port: "", "0", "8080" or "8000-8010"; 0, 0 asks for any.
func ParseRange(s string) (first, last uint16, err error) {
	if s == "" || s == "0" {
		return 0, 0, nil
	}
	lo, hi, ranged := strings.Cut(s, "-")
	a, err := strconv.ParseUint(lo, 10, 16)
	if err != nil {
		return 0, 0, fault.Invalid("invalid port specification: %q", s)
	}
	b := a
	if ranged {
		if b, err = strconv.ParseUint(hi, 10, 16); err != nil || b < a || a == 0 {
			return 0, 0, fault.Invalid("invalid port specification: %q", s)
		}
	}
	return uint16(a), uint16(b), nil
}
