package command

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/docker/cli/cli/connhelper/commandconn"
	"github.com/docker/cli/cli/connhelper/ssh"
	"github.com/moby/moby/client"
)

// sshOptions are the client's for an engine behind ssh://[USER@]HOST[:PORT][/SOCKET]: each
// connection is an ssh(1) whose standard streams `system dial-stdio` joins to the engine over there.
// The program is tare where the other host has it, else docker.
func sshOptions(host string) ([]client.Opt, error) {
	spec, err := ssh.ParseURL(host)
	if err != nil {
		return nil, fmt.Errorf("cannot use engine address %s: %w", host, err)
	}
	args := "system dial-stdio"
	if strings.Trim(spec.Path, "/") != "" {
		args = `--host="unix://$0" ` + args
	}
	script := "if command -v tare >/dev/null; then exec tare " + args + "; else exec docker " + args + "; fi"
	spec.Path, err = "", nil
	command, err := spec.Command([]string{"-o ConnectTimeout=30", "-T"}, "sh", "-c", script, socketPath(host))
	if err != nil {
		return nil, fmt.Errorf("cannot use engine address %s: %w", host, err)
	}
	dial := func(context.Context, string, string) (net.Conn, error) {
		// The connection outlives the request that made it.
		return commandconn.New(context.Background(), "ssh", command...)
	}
	return []client.Opt{client.WithHost("http://engine.behind.ssh"), client.WithDialContext(dial)}, nil
}

// socketPath is the path of an ssh:// address.
func socketPath(host string) string {
	rest := strings.TrimPrefix(host, "ssh://")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[i:]
	}
	return "/"
}
