// Package dns is the name server inside a container's network namespace.
//
//	names       what containers of the shared networks are called; answered here
//	upstreams   the host's name servers, asked from the host's namespace for everything else
//
// The sockets are opened by a thread inside the namespace and served from here;
// they are all that ties the server to it.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// Addr is where containers find the server, at Port: by binding it or, where programs of the container shall be free to bind that port
// of all addresses themselves, by a redirection to another.
var Addr = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// Port is DNS's.
const Port = 53

const (
	ttl         = 10 // seconds; a restarted container may have another address
	inFlight    = 256
	tryUpstream = 2500 * time.Millisecond // per upstream; the C library gives up after 5 s
	idleTCP     = 10 * time.Second
	maxUDP      = 4096
)

// Names answers for containers. Names come in lower case without a dot at the end.
type Names interface {
	// Lookup returns a name's IPv4 addresses; known is false for names that are nobody's.
	Lookup(name string) (addrs []netip.Addr, known bool)
	// Reverse returns the name of an address, "" if it is nobody's.
	Reverse(addr netip.Addr) string
	// Upstreams returns the servers for all other names; none refuses them.
	Upstreams() []netip.Addr
}

// Sockets are a server's, bound in the namespace of the thread that called Listen.
type Sockets struct {
	Port     uint16
	udp, tcp *os.File
}

// Listen binds a port of Addr for UDP and TCP; 0 is any. The namespace's loopback link has to be up.
func Listen(port uint16) (*Sockets, error) {
	for range attempts {
		udp, err := bound(unix.SOCK_DGRAM, port)
		if err != nil {
			return nil, err
		}
		number, err := portOf(udp)
		if err != nil {
			udp.Close()
			return nil, err
		}
		tcp, err := bound(unix.SOCK_STREAM, number)
		if err == nil {
			return &Sockets{number, udp, tcp}, nil
		}
		udp.Close()
		if port != 0 || !errors.Is(err, unix.EADDRINUSE) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("cannot listen on %s for DNS: no port is free for both UDP and TCP", Addr)
}

// attempts to find a port for both
const attempts = 16

func portOf(f *os.File) (uint16, error) {
	sa, err := unix.Getsockname(int(f.Fd()))
	if err != nil {
		return 0, fmt.Errorf("cannot listen on %s for DNS: %w", Addr, err)
	}
	return uint16(sa.(*unix.SockaddrInet4).Port), nil
}

// Close is for sockets that no server was started on.
func (s *Sockets) Close() {
	s.udp.Close()
	s.tcp.Close()
}

func bound(kind int, port uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: Addr.As4()})
		if err == nil && kind == unix.SOCK_STREAM {
			err = unix.Listen(fd, 16)
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s:%d for DNS: %w", Addr, port, err)
	}
	return os.NewFile(uintptr(fd), "dns"), nil
}

// Server answers one sandbox.
type Server struct {
	names  Names
	udp    net.PacketConn
	tcp    net.Listener
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{} // one per query in flight
	wg     sync.WaitGroup
}

// Serve starts a server on the sockets, which it takes over.
func Serve(s *Sockets, names Names) (*Server, error) {
	defer s.Close()
	udp, err := net.FilePacketConn(s.udp)
	if err != nil {
		return nil, fmt.Errorf("cannot serve DNS: %w", err)
	}
	tcp, err := net.FileListener(s.tcp)
	if err != nil {
		udp.Close()
		return nil, fmt.Errorf("cannot serve DNS: %w", err)
	}
	v := &Server{names: names, udp: udp, tcp: tcp, slots: make(chan struct{}, inFlight)}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.wg.Add(2)
	go v.serveUDP()
	go v.serveTCP()
	return v, nil
}

// Close stops the server at once; queries in flight are dropped.
func (v *Server) Close() {
	v.cancel()
	v.udp.Close()
	v.tcp.Close()
	v.wg.Wait()
}

func (v *Server) serveUDP() {
	defer v.wg.Done()
	buf := make([]byte, maxUDP)
	for {
		n, from, err := v.udp.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier answer
		}
		query := append([]byte(nil), buf[:n]...)
		select {
		case v.slots <- struct{}{}:
			go func() {
				defer func() { <-v.slots }()
				if answer := v.answer(query, "udp"); answer != nil {
					v.udp.WriteTo(answer, from)
				}
			}()
		default: // the asker will ask again
		}
	}
}

func (v *Server) serveTCP() {
	defer v.wg.Done()
	for {
		c, err := v.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		select {
		case v.slots <- struct{}{}:
			go func() {
				defer func() { <-v.slots }()
				v.converse(c)
			}()
		default:
			c.Close()
		}
	}
}

// converse answers the queries of one TCP connection.
func (v *Server) converse(c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(v.ctx, func() { c.Close() })()
	for {
		c.SetDeadline(time.Now().Add(idleTCP))
		query, err := readFramed(c)
		if err != nil {
			return
		}
		answer := v.answer(query, "tcp")
		if answer == nil || writeFramed(c, answer) != nil {
			return
		}
	}
}

func readFramed(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

func writeFramed(w io.Writer, msg []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
	return err
}

// answer returns the response to a query, nil for what is none.
func (v *Server) answer(query []byte, network string) []byte {
	q, ok := parse(query)
	if !ok {
		return nil
	}
	if q.header.OpCode != 0 || q.question.Class != dnsmessage.ClassINET {
		return q.reply(dnsmessage.RCodeNotImplemented, nil, network)
	}
	if records, known := v.own(q.question); known {
		return q.reply(dnsmessage.RCodeSuccess, records, network)
	}
	if answer := v.forward(q, query, network); answer != nil {
		return answer
	}
	return q.reply(dnsmessage.RCodeServerFailure, nil, network)
}

// own answers what is about containers.
func (v *Server) own(q dnsmessage.Question) (records []dnsmessage.ResourceBody, known bool) {
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	switch q.Type {
	case dnsmessage.TypePTR:
		addr, ok := reversed(name)
		if !ok {
			return nil, false
		}
		found := v.names.Reverse(addr)
		if found == "" {
			return nil, false
		}
		target, err := dnsmessage.NewName(found + ".")
		if err != nil {
			return nil, false
		}
		return []dnsmessage.ResourceBody{&dnsmessage.PTRResource{PTR: target}}, true
	default:
		addrs, known := v.names.Lookup(name)
		if q.Type == dnsmessage.TypeA {
			for _, a := range addrs {
				records = append(records, &dnsmessage.AResource{A: a.As4()})
			}
			rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		}
		return records, known
	}
}

// reversed reads 4.3.2.1.in-addr.arpa.
func reversed(name string) (netip.Addr, bool) {
	digits, ok := strings.CutSuffix(name, ".in-addr.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	p := strings.Split(digits, ".")
	if len(p) != 4 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(p[3] + "." + p[2] + "." + p[1] + "." + p[0])
	return a, err == nil
}

// forward asks the upstreams in turn, by the transport that the query came with.
func (v *Server) forward(q query, raw []byte, network string) []byte {
	for _, up := range v.names.Upstreams() {
		ctx, cancel := context.WithTimeout(v.ctx, tryUpstream)
		answer, err := ask(ctx, q, raw, network, up)
		cancel()
		if err == nil {
			return answer
		}
		if v.ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

func ask(ctx context.Context, q query, raw []byte, network string, up netip.Addr) ([]byte, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, netip.AddrPortFrom(up, Port).String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if network == "tcp" {
		if err := writeFramed(c, raw); err != nil {
			return nil, err
		}
		answer, err := readFramed(c)
		if err == nil && !q.answeredBy(answer) {
			err = errors.New("answer to another question")
		}
		return answer, err
	}
	if _, err := c.Write(raw); err != nil {
		return nil, err
	}
	buf := make([]byte, 65535)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if q.answeredBy(buf[:n]) {
			return buf[:n], nil
		}
	}
}
