// Package image is the commands about images: pull, push, build, images, save and the rest.
package image

import (
	"context"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewPull is `tare pull`.
func NewPull(env *command.Env) *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use:   "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short: "Download an image from a registry",
		Args:  command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return pull(cmd.Context(), env, args[0], platform, all, quiet, env.Stdout)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&platform, "platform", "", "Set platform if server is multi-platform capable")
	command.ContentTrustFlag(fs)
	return cmd
}

// Pull fetches an image for a container and shows its progress on stderr, unless quiet.
func Pull(ctx context.Context, env *command.Env, named reference.Named, platform string, quiet bool) error {
	w := io.Writer(env.Stderr)
	if quiet {
		w = io.Discard
	}
	return fetch(ctx, env, reference.TagNameOnly(named), platform, false, w, output.TerminalOf(env.Stderr))
}

func pull(ctx context.Context, env *command.Env, ref, platform string, all, quiet bool, w io.Writer) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return err
	}
	switch {
	case all && !reference.IsNameOnly(named):
		return fmt.Errorf("tag can't be used with --all-tags/-a")
	case !all:
		if reference.IsNameOnly(named) && !quiet {
			fmt.Fprintf(w, "Using default tag: latest\n")
		}
		named = reference.TagNameOnly(named)
	}
	out := w
	if quiet {
		out = io.Discard
	}
	if err := fetch(ctx, env, named, platform, all, out, output.TerminalOf(env.Stdout)); err != nil {
		return err
	}
	fmt.Fprintln(w, named.String())
	return nil
}

func fetch(ctx context.Context, env *command.Env, named reference.Named, platform string, all bool, w io.Writer, t *output.Terminal) error {
	o := client.ImagePullOptions{All: all}
	if platform != "" {
		p, err := command.ParsePlatform(platform)
		if err != nil {
			return err
		}
		o.Platforms = []ocispec.Platform{*p}
	}
	var err error
	if o.RegistryAuth, err = env.RegistryAuth(named); err != nil {
		return err
	}
	c, err := env.Client(ctx)
	if err != nil {
		return err
	}
	res, err := c.ImagePull(ctx, reference.FamiliarString(named), o)
	if err != nil {
		return err
	}
	defer res.Close()
	return output.Progress(res, w, t, nil)
}
