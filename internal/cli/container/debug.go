package container

import (
	"fmt"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
)

// debugImage has the tools that `debug` brings unless told otherwise.
const debugImage = "busybox"

// NewDebug is `tare debug`: a shell with tools beside a container that has none. It is a container of its own, made of
// an image with tools, in the other's process and network namespaces; the other's files are at /proc/1/root, where the shell starts.
func NewDebug(env *command.Env) *cobra.Command {
	var image string
	cmd := &cobra.Command{
		Use: "debug [OPTIONS] CONTAINER [COMMAND] [ARG...]", Short: "Open a shell with tools in a container that has none", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			got, err := c.ContainerInspect(cmd.Context(), args[0], client.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			if !got.Container.State.Running {
				return fmt.Errorf("container %s is not running: start it first, or look at its files with `tare cp %s:/PATH -`", args[0], args[0])
			}
			id := got.Container.ID
			flags := []string{"--rm", "--interactive", "--pid", "container:" + id, "--cap-add", "SYS_PTRACE", "--label", "tare.debug=" + id}
			if got.Container.HostConfig.NetworkMode.IsHost() {
				flags = append(flags, "--network", "host")
			} else {
				flags = append(flags, "--network", "container:"+id)
			}
			if env.StdinTTY() && env.StdoutTTY() {
				flags = append(flags, "--tty")
			}
			words := args[1:]
			if len(words) == 0 {
				words = []string{"sh", "-c", "cd /proc/1/root; exec sh"}
			}
			run := NewRun(env)
			run.SetContext(cmd.Context())
			if err := run.ParseFlags(append(append(flags, image), words...)); err != nil {
				return err
			}
			return run.RunE(run, run.Flags().Args())
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Running),
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&image, "image", debugImage, "Image with the tools")
	return cmd
}
