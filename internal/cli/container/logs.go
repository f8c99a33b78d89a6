package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewLogs is `tare logs`. Of several containers, every line has the container's name before it.
func NewLogs(env *command.Env) *cobra.Command {
	o := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true}
	cmd := &cobra.Command{
		Use: "logs [OPTIONS] CONTAINER [CONTAINER...]", Short: "Fetch the logs of one or more containers", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return logs(cmd.Context(), c, args[0], o, func(string) (io.WriteCloser, io.WriteCloser) {
					return open{env.Stdout}, open{env.Stderr}
				})
			}
			return logsOfAll(cmd.Context(), env, c, args, o)
		},
		ValidArgsFunction: command.Complete(env, command.Containers()),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	fs.StringVar(&o.Since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.StringVar(&o.Until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	fs.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
	fs.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	return cmd
}

// open is an output that stays open.
type open struct{ io.Writer }

func (open) Close() error { return nil }

// logs copies a container's logs to what to makes for its name.
func logs(ctx context.Context, c *client.Client, ref string, o client.ContainerLogsOptions, to func(name string) (stdout, stderr io.WriteCloser)) error {
	got, err := c.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	r, err := c.ContainerLogs(ctx, got.Container.ID, o)
	if err != nil {
		return err
	}
	defer r.Close()
	stdout, stderr := to(strings.TrimPrefix(got.Container.Name, "/"))
	if got.Container.Config.Tty {
		_, err = io.Copy(stdout, r)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, r)
	}
	return errors.Join(err, stdout.Close(), stderr.Close())
}

// colours tell containers apart on a terminal.
var colours = []string{"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"}

// logsOfAll copies the logs of several containers at once, a line at a time.
func logsOfAll(ctx context.Context, env *command.Env, c *client.Client, refs []string, o client.ContainerLogsOptions) error {
	width := 0
	for _, ref := range refs {
		width = max(width, len(ref))
	}
	stdout, stderr := output.NewLines(env.Stdout), output.NewLines(env.Stderr)
	if env.StdoutTTY() {
		stderr = stdout // one screen
	}
	errs := make([]error, len(refs))
	var all sync.WaitGroup
	for i, ref := range refs {
		all.Go(func() {
			errs[i] = logs(ctx, c, ref, o, func(name string) (io.WriteCloser, io.WriteCloser) {
				prefix := fmt.Sprintf("%-*s | ", width, name)
				if env.Colour() {
					prefix = "\x1b[" + colours[i%len(colours)] + "m" + prefix + "\x1b[0m"
				}
				return stdout.Stream(prefix), stderr.Stream(prefix)
			})
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
