package system

import (
	"io"

	"github.com/spf13/cobra"

	"tare/internal/cli/command"
)

// NewDialStdio is `tare system dial-stdio`: the near end of ssh:// on the engine's host.
func NewDialStdio(env *command.Env) *cobra.Command {
	return &cobra.Command{
		Use: "dial-stdio", Short: "Proxy the stdio stream to the engine connection. Should not be invoked manually.", Args: command.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			conn, err := c.Dialer()(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			go func() {
				_, _ = io.Copy(conn, env.Stdin)
				if half, ok := conn.(interface{ CloseWrite() error }); ok {
					_ = half.CloseWrite()
				}
			}()
			_, err = io.Copy(env.Stdout, conn) // ends when the engine does, whatever comes in
			return err
		},
	}
}
