package container

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tare/internal/cli/command"
	"tare/internal/cli/image"
)

// NewRun is `tare run`.
func NewRun(env *command.Env) *cobra.Command {
	var f flags
	var detach, sigProxy bool
	var detachKeys string
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create and run a new container from an image",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(cmd.Flags(), args)
			if err != nil {
				return failed(cmd, 125, err)
			}
			r := run{cmd: cmd, env: env, flags: &f, detachKeys: detachKeys, sigProxy: sigProxy}
			if detach {
				return r.detached(cmd.Context(), req)
			}
			return r.attached(cmd.Context(), req)
		},
	}
	fs := cmd.Flags()
	f.register(fs)
	f.complete(env, cmd)
	fs.BoolVarP(&detach, "detach", "d", false, "Run container in background and print container ID")
	fs.BoolVar(&sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	fs.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

// failed is how run and create say that there will be no container. The codes are Docker's: 127 for a
// command that does not exist, 126 for one that can't be executed, 125 for the rest.
func failed(cmd *cobra.Command, code int, err error) error {
	return &command.ExitError{Code: code, Message: "tare: " + err.Error() + "\n\n" + command.HelpHint(cmd)}
}

type run struct {
	cmd        *cobra.Command
	env        *command.Env
	flags      *flags
	detachKeys string
	sigProxy   bool
}

// failed gives a failed create or start its exit code.
func (r run) failed(err error) error {
	if client.IsErrConnectionFailed(err) {
		return failed(r.cmd, 125, errors.New(command.NoEngine(r.env)))
	}
	return failed(r.cmd, startCode(err), err)
}

func (r run) detached(ctx context.Context, req client.ContainerCreateOptions) error {
	if len(r.flags.attach) > 0 {
		return errors.New("conflicting options: cannot specify both --attach and --detach")
	}
	req.Config.AttachStdin, req.Config.AttachStdout, req.Config.AttachStderr, req.Config.StdinOnce = false, false, false, false
	c, id, err := create(ctx, r.env, r.flags, req)
	if err != nil {
		return r.failed(err)
	}
	defer fmt.Fprintln(r.env.Stdout, id) // also of one that can't be started
	if _, err := c.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return r.failed(err)
	}
	return nil
}

func (r run) attached(ctx context.Context, req client.ContainerCreateOptions) error {
	if req.Config.Tty && req.Config.AttachStdin && !r.env.StdinTTY() {
		return errNoTerminal
	}
	if req.Config.Tty && r.env.StdoutTTY() {
		if w, h, err := term.GetSize(int(r.env.Stdout.Fd())); err == nil {
			req.HostConfig.ConsoleSize = [2]uint{uint(h), uint(w)}
		}
	}
	if _, err := parseKeys(r.detachKeys); err != nil {
		return err
	}
	c, id, err := create(ctx, r.env, r.flags, req)
	if err != nil {
		return r.failed(err)
	}
	conf := req.Config
	condition := container.WaitConditionNextExit
	if req.HostConfig.AutoRemove {
		condition = container.WaitConditionRemoved
	}
	waitCtx, stopWaiting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWaiting()
	wait := c.ContainerWait(waitCtx, id, client.ContainerWaitOptions{Condition: condition})
	var s *session
	if conf.AttachStdin || conf.AttachStdout || conf.AttachStderr {
		a, err := c.ContainerAttach(ctx, id, client.ContainerAttachOptions{
			Stream: true, Stdin: conf.AttachStdin, Stdout: conf.AttachStdout, Stderr: conf.AttachStderr, DetachKeys: r.detachKeys,
		})
		if err != nil {
			return r.failed(err)
		}
		defer a.Close()
		s = &session{env: r.env, stream: a.HijackedResponse, tty: conf.Tty, stdin: conf.AttachStdin, stdout: conf.AttachStdout, stderr: conf.AttachStderr, detachKeys: r.detachKeys}
	}
	if _, err := c.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return r.failed(err)
	}
	return follow(ctx, r.env, c, id, s, wait, r.sigProxy && !conf.Tty, true)
}

// follow copies streams until the container ends and returns its exit code as the error.
// Detaching is a success if detached says so, and errDetached otherwise, as Docker has it.
func follow(ctx context.Context, env *command.Env, c *client.Client, id string, s *session, wait client.ContainerWaitResult, proxy, detached bool) error {
	if proxy {
		defer forwardSignals(context.WithoutCancel(ctx), env, c, id)()
	}
	if s != nil {
		if s.tty {
			sizeCtx, stop := context.WithCancel(ctx)
			defer stop()
			followSize(sizeCtx, env, func(ctx context.Context, w, h uint) error {
				_, err := c.ContainerResize(ctx, id, client.ContainerResizeOptions{Width: w, Height: h})
				return err
			})
		}
		if err := s.copy(ctx); err != nil {
			return err
		}
		if s.detached.Load() {
			if detached {
				return nil
			}
			return errDetached
		}
	}
	return exitStatus(wait)
}

func exitStatus(wait client.ContainerWaitResult) error {
	select {
	case res := <-wait.Result:
		if res.Error != nil {
			return &command.ExitError{Code: 125, Message: "error waiting for container: " + res.Error.Message}
		}
		if res.StatusCode != 0 {
			return &command.ExitError{Code: int(res.StatusCode)}
		}
		return nil
	case err := <-wait.Error:
		return &command.ExitError{Code: 125, Message: "error waiting for container: " + err.Error()}
	}
}

// create makes the container, pulling the image if the policy says so.
func create(ctx context.Context, env *command.Env, f *flags, req client.ContainerCreateOptions) (*client.Client, string, error) {
	c, err := env.Client(ctx)
	if err != nil {
		return nil, "", err
	}
	cidfile, err := openCIDFile(f.cidfile)
	if err != nil {
		return nil, "", err
	}
	defer cidfile.close()
	named, err := reference.ParseNormalizedNamed(req.Config.Image)
	byID := err != nil // 64 hexadecimal digits, which no registry has
	switch f.pull {
	case "always":
		if byID {
			break
		}
		if err := image.Pull(ctx, env, named, f.platform, f.quiet); err != nil {
			return nil, "", err
		}
	case "missing", "never", "":
	default:
		return nil, "", fmt.Errorf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", f.pull)
	}
	res, err := c.ContainerCreate(ctx, req)
	if errdefs.IsNotFound(err) && strings.Contains(err.Error(), "No such image") && f.pull != "never" && f.pull != "always" && !byID {
		if !f.quiet {
			fmt.Fprintf(env.Stderr, "Unable to find image '%s' locally\n", reference.FamiliarString(reference.TagNameOnly(named)))
		}
		if err := image.Pull(ctx, env, named, f.platform, f.quiet); err != nil {
			return nil, "", err
		}
		res, err = c.ContainerCreate(ctx, req)
	}
	if err != nil {
		return nil, "", err
	}
	for _, w := range res.Warnings {
		env.Warn("%s", w)
	}
	return c, res.ID, cidfile.write(res.ID)
}

// errNoTerminal says that a terminal was asked for where there is none.
var errNoTerminal = errors.New("the input device is not a TTY")

// startCode is the exit code for a container that can't be made or started.
func startCode(err error) int {
	msg := err.Error()
	switch {
	case strings.Contains(msg, "executable file not found"), strings.Contains(msg, "no such file or directory") && strings.Contains(msg, "exec"):
		return 127
	case strings.Contains(msg, "permission denied") && strings.Contains(msg, "exec"), strings.Contains(msg, "exec format error"), strings.Contains(msg, "is a directory"):
		return 126
	}
	return 125
}
