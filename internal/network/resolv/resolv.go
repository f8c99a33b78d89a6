// Package resolv reads the host's resolv.conf and writes containers' (resolv.conf(5), hosts(5)).
package resolv

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// Conf is a resolver configuration.
type Conf struct {
	Nameservers []netip.Addr
	Search      []string
	Options     []string
}

// Parse reads a resolv.conf; lines it does not know are skipped, as the C library does.
func Parse(data []byte) Conf {
	var c Conf
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				c.Nameservers = append(c.Nameservers, a)
			}
		case "search":
			c.Search = f[1:]
		case "domain":
			c.Search = f[1:2]
		case "options":
			c.Options = append(c.Options, f[1:]...)
		}
	}
	return c
}

// Bytes is the file's content.
func (c Conf) Bytes() []byte {
	var b bytes.Buffer
	b.WriteString("# Written by Tare.\n")
	for _, n := range c.Nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", n)
	}
	if len(c.Search) > 0 && !(len(c.Search) == 1 && c.Search[0] == ".") {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Search, " "))
	}
	if len(c.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.Options, " "))
	}
	return b.Bytes()
}

// Host follows a resolv.conf on the host. Safe for concurrent use.
type Host struct {
	Path string

	mu    sync.Mutex // guards below
	stamp stamp
	conf  Conf
	raw   []byte
}

type stamp struct {
	mtime time.Time
	size  int64
}

// Conf returns the configuration as it is now; a missing file is an empty one.
func (h *Host) Conf() Conf {
	c, _ := h.read()
	return c
}

// Raw is the file's content as it is now.
func (h *Host) Raw() []byte {
	_, raw := h.read()
	return raw
}

func (h *Host) read() (Conf, []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fi, err := os.Stat(h.Path)
	if err != nil {
		return Conf{}, nil
	}
	if s := (stamp{fi.ModTime(), fi.Size()}); s != h.stamp {
		if raw, err := os.ReadFile(h.Path); err == nil {
			h.raw, h.conf, h.stamp = raw, Parse(raw), s
		}
	}
	return h.conf, h.raw
}

// Hosts writes /etc/hosts: the fixed lines, extra lines, then one line per address of the container.
func Hosts(extra []Line, own []Line) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	b.Write(Lines(extra))
	b.Write(Lines(own))
	return b.Bytes()
}

// Line is one address and its names.
type Line struct {
	Addr  netip.Addr
	Names string
}

// Lines formats lines of a hosts file.
func Lines(lines []Line) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		fmt.Fprintf(&b, "%s\t%s\n", l.Addr, l.Names)
	}
	return b.Bytes()
}
