package image

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewPush is `tare push`.
func NewPush(env *command.Env) *cobra.Command {
	var all, quiet bool
	var platform, compression string
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
			if compression != "" {
				return pushCompressed(cmd, env, c, named, o, compression, quiet)
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
	fs.StringVar(&compression, "compression", "", `Send the layers in another form ("gzip", "zstd"); the digest is another one then`)
	command.ContentTrustFlag(fs)
	return cmd
}

// pushCompressed asks for what Docker's client has no option for.
func pushCompressed(cmd *cobra.Command, env *command.Env, c *client.Client, named reference.Named, o client.ImagePushOptions, form string, quiet bool) error {
	if o.Platform != nil {
		return fmt.Errorf("--compression and --platform don't go together: layers are compressed for the platform that is here")
	}
	query := url.Values{"compression": {form}}
	if tagged, ok := named.(reference.Tagged); ok {
		query.Set("tag", tagged.Tag())
	}
	w := io.Writer(env.Stdout)
	if quiet {
		w = io.Discard
	}
	err := env.Stream(cmd.Context(), c, http.MethodPost, "/images/"+named.Name()+"/push", query, http.Header{"X-Registry-Auth": {o.RegistryAuth}},
		func(body io.Reader) error {
			return output.Progress(body, w, output.TerminalOf(env.Stdout), func(string, json.RawMessage) {})
		})
	if err == nil && quiet {
		fmt.Fprintln(env.Stdout, named.String())
	}
	return err
}
