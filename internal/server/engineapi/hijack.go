package engineapi

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moby/moby/api/types"

	"tare/internal/base/fault"
	"tare/internal/engine/container"
)

// errDetached ends a copy at the client's detach keys.
var errDetached = errors.New("detached by the client's keys")

// takeOver turns the request's connection into a byte stream in both directions, as Docker does for
// attach and exec:
//
//	with Upgrade: tcp   HTTP/1.1 101 UPGRADED, Content-Type raw-stream or multiplexed-stream
//	without             HTTP/1.1 200 OK, Content-Type raw-stream
//
// What the client sent ahead is in the returned reader.
func takeOver(w http.ResponseWriter, r *http.Request, contentType string) (net.Conn, *bufio.Reader, error) {
	h := w.Header().Clone()
	_, upgrade := r.Header["Upgrade"]
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, fault.Internal("cannot take over the connection of %s: %w", r.URL.Path, err)
	}
	begin(w)
	var head bytes.Buffer
	if upgrade {
		fmt.Fprintf(&head, "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n", contentType)
	} else {
		fmt.Fprintf(&head, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\n", types.MediaTypeRawStream)
	}
	h.Del("Content-Type")
	h.Write(&head)
	head.WriteString("\r\n")
	if _, err := conn.Write(head.Bytes()); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, rw.Reader, nil
}

// streamType is the content type of an output stream.
func streamType(terminal bool) string {
	if terminal {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}

// connect copies between the client and a process until the process's output
// ends, the client goes away, or it types the detach keys. Both connections are closed then. Between the output's
// end and the closing, ended is called, unless it is nil.
func connect(client net.Conn, sent *bufio.Reader, s *container.Stream, stdin bool, ended func()) {
	done := make(chan struct{}, 2) // one for each direction that ended the attachment
	if s.Conn == nil {
		if s.Past != nil {
			awaitHeadRead(client)
			io.Copy(client, s.Past)
		}
		client.Close()
		return
	}
	go func() {
		err := copyInput(client, sent, s, stdin)
		if errors.Is(err, errDetached) {
			done <- struct{}{}
			return
		}
		if stdin {
			s.Conn.CloseWrite()
		}
		// The client closed one direction, or the process doesn't read any more: its output goes on.
		if awaitHangup(client) {
			done <- struct{}{}
		}
	}()
	go func() {
		awaitHeadRead(client)
		if s.Past != nil {
			if _, err := io.Copy(client, s.Past); err != nil {
				done <- struct{}{}
				return
			}
		}
		if _, err := io.Copy(client, s.Conn); err == nil && ended != nil {
			ended()
		}
		done <- struct{}{}
	}()
	<-done
	s.Conn.Close()
	client.Close()
}

// headLimit is how long at most output waits for the client to read the head of the answer, headPause the first and the longest
// time between two looks.
const headLimit = 5 * time.Second

var headPause = [2]time.Duration{20 * time.Microsecond, 5 * time.Millisecond}

// awaitHeadRead returns when the client has read all that was sent. docker-py reads the head through a buffer and then goes on
// without it: output that comes together with the head is lost. Only a unix socket tells what its reader has not read.
func awaitHeadRead(client net.Conn) {
	sc, ok := client.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	pause := headPause[0]
	for end := time.Now().Add(headLimit); time.Now().Before(end); time.Sleep(pause) {
		pause = min(2*pause, headPause[1])
		unread := 0
		if raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) != nil || err != nil || unread == 0 {
			return
		}
	}
}

// copyInput moves what the client types to the process. Without stdin it is read and thrown away, so that
// the end of the connection is seen.
func copyInput(client net.Conn, sent *bufio.Reader, s *container.Stream, stdin bool) error {
	var to io.Writer = io.Discard
	if stdin {
		to = s.Conn
	}
	if stdin && len(s.DetachKeys) > 0 {
		_, err := io.Copy(to, &keyWatch{r: io.MultiReader(io.LimitReader(sent, int64(sent.Buffered())), client), keys: s.DetachKeys})
		return err
	}
	if n := sent.Buffered(); n > 0 {
		if _, err := io.CopyN(to, sent, int64(n)); err != nil {
			return err
		}
	}
	// From here on plain connections, which the kernel may splice.
	_, err := io.Copy(to, client)
	return err
}

// awaitHangup waits until a client that has closed its writing side closes the other one too.
// It returns false at once where the connection can't tell (TLS).
func awaitHangup(client net.Conn) bool {
	sc, ok := client.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	// The poller wakes the function at every change of the socket's state.
	raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, _ := unix.Poll(p, 0)
		return n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return true
}

// keyWatch reads until the detach keys come one after the other. A beginning of them is held back until
// it is known what it is.
type keyWatch struct {
	r       io.Reader
	keys    []byte
	matched int    // keys seen and held back
	ready   []byte // decided, not yet delivered
	err     error
	buf     [4096]byte
}

func (k *keyWatch) Read(p []byte) (int, error) {
	for len(k.ready) == 0 {
		if k.err != nil {
			return 0, k.err
		}
		n, err := k.r.Read(k.buf[:])
		out := make([]byte, 0, n+len(k.keys))
		for _, b := range k.buf[:n] {
			if b != k.keys[k.matched] {
				out = append(out, k.keys[:k.matched]...)
				k.matched = 0
			}
			if b == k.keys[k.matched] {
				k.matched++
			} else {
				out = append(out, b)
			}
			if k.matched == len(k.keys) {
				k.err = errDetached
				break
			}
		}
		if err != nil && k.err == nil {
			out = append(out, k.keys[:k.matched]...)
			k.matched, k.err = 0, err
		}
		k.ready = out
	}
	n := copy(p, k.ready)
	k.ready = k.ready[n:]
	return n, nil
}
