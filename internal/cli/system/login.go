package system

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tare/internal/cli/command"
)

// NewLogin is `tare login`.
func NewLogin(env *command.Env) *cobra.Command {
	var user, password string
	var fromStdin bool
	cmd := &cobra.Command{
		Use: "login [OPTIONS] [SERVER]", Short: "Authenticate to a registry", Args: command.MaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host := ""
			if len(args) == 1 {
				host = args[0]
			}
			a := registry.AuthConfig{ServerAddress: command.Server(host), Username: user, Password: password}
			if err := ask(env, &a, fromStdin); err != nil {
				return err
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.RegistryLogin(cmd.Context(), client.RegistryLoginOptions{Username: a.Username, Password: a.Password, ServerAddress: a.ServerAddress})
			if err != nil {
				return err
			}
			if res.Auth.IdentityToken != "" {
				a.Password, a.IdentityToken = "", res.Auth.IdentityToken
			}
			config, err := env.Config()
			if err != nil {
				return err
			}
			if err := config.Store(a); err != nil {
				return fmt.Errorf("cannot save the credentials: %w", err)
			}
			fmt.Fprintln(env.Stdout, res.Auth.Status)
			return nil
		},
	}
	cmd.Flags().StringVarP(&user, "username", "u", "", "Username")
	cmd.Flags().StringVarP(&password, "password", "p", "", "Password or Personal Access Token (PAT)")
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return cmd
}

// ask completes the credentials from stdin or the terminal.
func ask(env *command.Env, a *registry.AuthConfig, fromStdin bool) error {
	if fromStdin {
		if a.Password != "" {
			return errors.New("--password and --password-stdin are mutually exclusive")
		}
		if a.Username == "" {
			return errors.New("Must provide --username with --password-stdin")
		}
		data, err := io.ReadAll(env.Stdin)
		if err != nil {
			return err
		}
		a.Password = strings.TrimRight(string(data), "\r\n")
	} else if a.Password != "" {
		env.Warn("Using --password via the CLI is insecure. Use --password-stdin.")
	}
	if (a.Username == "" || a.Password == "") && !env.StdinTTY() {
		return errors.New("cannot perform an interactive login from a non TTY device")
	}
	if a.Username == "" {
		fmt.Fprint(env.Stdout, "Username: ")
		line, err := bufio.NewReader(env.Stdin).ReadString('\n')
		if err != nil {
			return err
		}
		a.Username = strings.TrimSpace(line)
	}
	if a.Password == "" {
		fmt.Fprint(env.Stdout, "Password: ")
		p, err := term.ReadPassword(int(env.Stdin.Fd()))
		fmt.Fprintln(env.Stdout)
		if err != nil {
			return err
		}
		a.Password = string(p)
	}
	if a.Username == "" || a.Password == "" {
		return errors.New("username and password are required")
	}
	return nil
}

// NewLogout is `tare logout`.
func NewLogout(env *command.Env) *cobra.Command {
	return &cobra.Command{
		Use: "logout [SERVER]", Short: "Log out from a registry", Args: command.MaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host := ""
			if len(args) == 1 {
				host = args[0]
			}
			server := command.Server(host)
			config, err := env.Config()
			if err != nil {
				return err
			}
			known, err := config.Erase(server)
			if err != nil {
				return err
			}
			if !known {
				fmt.Fprintf(env.Stdout, "Not logged in to %s\n", server)
				return nil
			}
			fmt.Fprintf(env.Stdout, "Removing login credentials for %s\n", server)
			return nil
		},
	}
}
