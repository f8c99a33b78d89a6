package supervise

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/wire"
)

// askForUpgrade has the supervisor of an exec root execute this program in its place, and waits for it.
func askForUpgrade(root string) int {
	if err := upgradeTo(root); err != nil {
		fmt.Fprintf(os.Stderr, "tare-run supervise: %v\n", err)
		return 1
	}
	return 0
}

func upgradeTo(root string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(root, wire.SocketName)}); err != nil {
		return fmt.Errorf("cannot reach a supervisor in %s: %w", root, err)
	}
	ask := func(m *wire.Message) (wire.Message, error) {
		frame, err := wire.Append(nil, m)
		if err != nil {
			return wire.Message{}, err
		}
		if _, err := unix.Write(fd, frame); err != nil {
			return wire.Message{}, err
		}
		var dec wire.Decoder
		buf := make([]byte, 4096)
		for {
			n, err := unix.Read(fd, buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n <= 0 {
				return wire.Message{}, fmt.Errorf("the supervisor is gone: %w", err)
			}
			dec.Feed(buf[:n])
			got, ok, err := dec.Next()
			if err != nil || ok {
				return got, err
			}
		}
	}
	hello, err := ask(&wire.Message{ID: 1, Op: wire.Hello})
	if err != nil {
		return err
	}
	body, err := decode[wire.HelloBody](&request{msg: hello})
	if err != nil {
		return err
	}
	if body.Format != estateFormat {
		return fmt.Errorf("the supervisor hands over format %d, this program takes over format %d", body.Format, estateFormat)
	}
	done, err := ask(&wire.Message{ID: 2, Op: wire.Upgrade, Body: wire.Body(wire.UpgradeBody{Program: program})})
	if err == nil && done.Error != nil {
		err = done.Error.Fault()
	}
	return err
}
