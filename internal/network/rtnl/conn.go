package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Conn is a route netlink socket. Safe for concurrent use.
type Conn struct {
	mu sync.Mutex // one batch and its answers at a time
	fd int
}

// Open makes a socket in the calling thread's network namespace; it stays there whatever the thread does later.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open route netlink socket: %w", err)
	}
	// Answers quote no request, so a batch of any size has room for them.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &Conn{fd: fd}, nil
}

// Close lets go of the socket.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd := c.fd
	c.fd = -1
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// Do sends the batch. All requests are tried; the first that failed names itself in the error, which
// wraps the kernel's errno.
func (c *Conn) Do(b *Batch) error {
	if b.Len() == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return errors.New("route netlink socket is closed")
	}
	if err := unix.Sendto(c.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("cannot send to route netlink: %w", err)
	}
	var first error
	buf := make([]byte, 8192)
	for left := b.Len(); left > 0; {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot read from route netlink: %w", err)
		}
		for m := buf[:n]; len(m) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(m))
			if size < unix.SizeofNlMsghdr || size > len(m) {
				return errors.New("route netlink sent a broken message")
			}
			if binary.NativeEndian.Uint16(m[4:]) == unix.NLMSG_ERROR && size >= unix.SizeofNlMsghdr+4 {
				left--
				seq := int(binary.NativeEndian.Uint32(m[8:]))
				errno := -int32(binary.NativeEndian.Uint32(m[unix.SizeofNlMsghdr:]))
				if errno != 0 && first == nil && !(unix.Errno(errno) == unix.ENODEV && b.gone[seq]) {
					title := "work"
					if seq >= 1 && seq <= b.Len() {
						title = b.titles[seq-1]
					}
					first = fmt.Errorf("cannot %s: %w", title, unix.Errno(errno))
				}
			}
			m = m[min((size+3)&^3, len(m)):]
		}
	}
	return first
}

// Index looks a link up by name in the socket's namespace; ENODEV if there is none.
func (c *Conn) Index(name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(c.fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("cannot find link %s: %w", name, err)
	}
	return int(req.Uint32()), nil
}
