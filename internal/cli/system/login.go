package system

import (
	"bufio"
	"context"
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
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			config, err := env.Config()
			if err != nil {
				return err
			}
			if user == "" && password == "" && !fromStdin {
				if status, err := again(cmd.Context(), env, c, config, a.ServerAddress); err == nil {
					fmt.Fprintln(env.Stdout, status)
					return nil
				}
			}
			if err := ask(env, &a, fromStdin); err != nil {
				return err
			}
			res, err := c.RegistryLogin(cmd.Context(), client.RegistryLoginOptions{Username: a.Username, Password: a.Password, ServerAddress: a.ServerAddress})
			if err != nil {
				return err
			}
			if res.Auth.IdentityToken != "" {
				a.Password, a.IdentityToken = "", res.Auth.IdentityToken
			}
			plain, err := config.Store(a)
			if err != nil {
				return fmt.Errorf("cannot save the credentials: %w", err)
			}
			if plain != "" {
				fmt.Fprintf(env.Stderr, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper there (credsStore) to remove this warning.\n\n", plain)
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

// again logs in with the credentials that are known already.
func again(ctx context.Context, env *command.Env, c *client.Client, config *command.ConfigFile, server string) (string, error) {
	a, err := config.Credentials(server)
	if err != nil {
		return "", err
	}
	if a.Username == "" && a.IdentityToken == "" {
		return "", errors.New("none known")
	}
	fmt.Fprintf(env.Stderr, "Authenticating with existing credentials... [Username: %s]\n\n", a.Username)
	fmt.Fprint(env.Stderr, "To login with a different account, run 'tare logout' followed by 'tare login'\n\n")
	res, err := c.RegistryLogin(ctx, client.RegistryLoginOptions{
		Username: a.Username, Password: a.Password, ServerAddress: server, IdentityToken: a.IdentityToken,
	})
	if err != nil {
		fmt.Fprintln(env.Stderr, "Login did not succeed, error:", err)
	}
	return res.Auth.Status, err
}

// ask completes the credentials from stdin or the terminal.
func ask(env *command.Env, a *registry.AuthConfig, fromStdin bool) error {
	if fromStdin {
		if a.Password != "" {
			return errors.New("conflicting options: cannot specify both --password and --password-stdin")
		}
		if a.Username == "" {
			return errors.New("the --password-stdin option requires --username to be set")
		}
		data, err := io.ReadAll(env.Stdin)
		if err != nil {
			return err
		}
		a.Password = strings.TrimRight(string(data), "\r\n")
	} else if a.Password != "" {
		fmt.Fprintln(env.Stderr, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	if (a.Username == "" || a.Password == "") && !env.StdinTTY() {
		return errors.New("Error: Cannot perform an interactive login from a non TTY device")
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
			if _, err := config.Erase(server); err != nil {
				return err
			}
			fmt.Fprintf(env.Stdout, "Removing login credentials for %s\n", server)
			return nil
		},
	}
}
