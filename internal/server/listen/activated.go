package listen

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"

	"tare/internal/server/config"
)

// given are the sockets that the service manager opened for this process (sd_listen_fds(3)).
type given struct {
	files []*os.File
	asked bool
}

// take returns listeners on them: all with the name "", else those with a name (FileDescriptorName=) or descriptor number.
// TCP ones speak TLS if the configuration says so.
func (g *given) take(c *config.Config, name string) ([]net.Listener, error) {
	if !g.asked {
		g.files, g.asked = activation.Files(true), true
	}
	var chosen []net.Listener
	var rest []*os.File
	for _, f := range g.files {
		if name != "" && f.Name() != name && strconv.Itoa(int(f.Fd())) != name {
			rest = append(rest, f)
			continue
		}
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return chosen, fmt.Errorf("cannot listen on fd://%s: %w", name, err)
		}
		if l.Addr().Network() == "tcp" && c.TLS {
			t, err := tlsConfig(c)
			if err != nil {
				l.Close()
				return chosen, err
			}
			l = tls.NewListener(l, t)
		}
		chosen = append(chosen, l)
	}
	g.files = rest
	if len(chosen) == 0 {
		return nil, fmt.Errorf("cannot listen on fd://%s: the service manager gave this program no such socket: start it by a .socket unit, or use unix:///PATH", name)
	}
	return chosen, nil
}

func (g *given) close() {
	for _, f := range g.files {
		f.Close()
	}
}
