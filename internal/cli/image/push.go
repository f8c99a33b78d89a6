package image

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewPush is `tare push`.
func NewPush(env *command.Env) *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use: "push [OPTIONS] NAME[:TAG]", Short: "Upload an image to a registry", Args: command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			named, err := reference.ParseNormalizedNamed(args[0])
			if err != nil {
				return err
			}
			switch {
			case all && !reference.IsNameOnly(named):
				return fmt.Errorf("tag can't be used with --all-tags/-a")
			case !all && reference.IsNameOnly(named):
				named = reference.TagNameOnly(named)
				if !quiet {
					fmt.Fprintln(env.Stdout, "Using default tag: latest")
				}
			}
			o := client.ImagePushOptions{All: all}
			if platform != "" {
				if o.Platform, err = command.ParsePlatform(platform); err != nil {
					return err
				}
			}
			if o.RegistryAuth, err = env.RegistryAuth(named); err != nil {
				return err
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.ImagePush(cmd.Context(), reference.FamiliarString(named), o)
			if err != nil {
				return err
			}
			defer res.Close()
			w := io.Writer(env.Stdout)
			if quiet {
				w = io.Discard
			}
			if err := output.Progress(res, w, output.TerminalOf(env.Stdout), func(string, json.RawMessage) {}); err != nil {
				return err
			}
			if quiet {
				fmt.Fprintln(env.Stdout, named.String())
			}
			return nil
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Images),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&platform, "platform", "", "Push a platform-specific manifest as a single-platform image to the registry")
	command.ContentTrustFlag(fs)
	return cmd
}
