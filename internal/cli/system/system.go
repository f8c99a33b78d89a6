// Package system is the commands about the engine as a whole: version, info,
// disk usage, events, pruning, and logging in to registries.
package system

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewInspect is `tare inspect`: whatever has that name.
func NewInspect(env *command.Env) *cobra.Command {
	var format, kind string
	var size bool
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] NAME|ID [NAME|ID...]", Short: "Return low-level information on Tare objects", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkKind(kind, cmd.Flags().Changed("type")); err != nil {
				return err
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			var found []output.Object
			missing := command.Each(args, func(name string) error {
				o, err := inspectAny(cmd.Context(), c, kind, name, size)
				if err == nil {
					found = append(found, o)
				}
				return err
			})
			if err := output.Inspect(env.Out(), format, found); err != nil {
				return err
			}
			return missing
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template")
	cmd.ValidArgsFunction = command.Complete(env, command.Any)
	cmd.Flags().StringVar(&kind, "type", "", `Only inspect objects of the given type: container, image, network, volume`)
	command.CompleteWords(cmd, "type", kinds...)
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	return cmd
}

// kinds of objects that can be inspected.
var kinds = []string{"container", "image", "network", "volume"}

func checkKind(kind string, given bool) error {
	switch {
	case given && kind == "":
		return fmt.Errorf("type is empty: must be one of %q", kinds)
	case given && !slices.Contains(kinds, kind):
		return fmt.Errorf("unknown type: %q: must be one of %q", kind, kinds)
	}
	return nil
}

func inspectAny(ctx context.Context, c *client.Client, kind, name string, size bool) (output.Object, error) {
	ways := []struct {
		name string
		get  func() (output.Object, error)
	}{
		{"container", func() (output.Object, error) {
			r, err := c.ContainerInspect(ctx, name, client.ContainerInspectOptions{Size: size})
			return output.Object{Value: r.Container, JSON: r.Raw}, err
		}},
		{"image", func() (output.Object, error) {
			var raw bytes.Buffer
			r, err := c.ImageInspect(ctx, name, client.ImageInspectWithRawResponse(&raw))
			return output.Object{Value: r.InspectResponse, JSON: raw.Bytes()}, err
		}},
		{"network", func() (output.Object, error) {
			r, err := c.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
			return output.Object{Value: r.Network, JSON: r.Raw}, err
		}},
		{"volume", func() (output.Object, error) {
			r, err := c.VolumeInspect(ctx, name, client.VolumeInspectOptions{})
			return output.Object{Value: r.Volume, JSON: r.Raw}, err
		}},
	}
	for _, k := range ways {
		if kind != "" && kind != k.name {
			continue
		}
		o, err := k.get()
		if err == nil || !errdefs.IsNotFound(err) || kind != "" {
			return o, err
		}
	}
	return output.Object{}, fmt.Errorf("Error: No such object: %s", name)
}

// NewEvents is `tare events`.
func NewEvents(env *command.Env) *cobra.Command {
	var o client.EventsListOptions
	var filters []string
	var format string
	cmd := &cobra.Command{
		Use: "events [OPTIONS]", Short: "Get real time events from the server", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Filters = command.Filters(filters)
			print, err := eventPrinter(env, format)
			if err != nil {
				return err
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res := c.Events(cmd.Context(), o)
			for {
				select {
				case m := <-res.Messages:
					if err := print(m); err != nil {
						return err
					}
				case err := <-res.Err:
					if errors.Is(err, context.Canceled) || err == nil || strings.Contains(err.Error(), "EOF") {
						return nil
					}
					return err
				}
			}
		},
	}
	cmd.Flags().StringVar(&o.Since, "since", "", "Show all events created since timestamp")
	cmd.Flags().StringVar(&o.Until, "until", "", "Stream events until this timestamp")
	command.FilterFlag(cmd.Flags(), &filters)
	cmd.Flags().StringVar(&format, "format", "", "Format output using a custom template: 'table', 'json' or a Go template")
	return cmd
}
