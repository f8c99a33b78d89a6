package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewSave is `tare save`.
func NewSave(env *command.Env) *cobra.Command {
	var to string
	var platforms []string
	cmd := &cobra.Command{
		Use: "save [OPTIONS] IMAGE [IMAGE...]", Short: "Save one or more images to a tar archive (streamed to STDOUT by default)", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var opts []client.ImageSaveOption
			ps, err := parsePlatforms(platforms)
			if err != nil {
				return err
			}
			if len(ps) > 0 {
				opts = append(opts, client.ImageSaveWithPlatforms(ps...))
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			return env.SaveTo("save image", to, func() (io.ReadCloser, error) { return c.ImageSave(cmd.Context(), args, opts...) })
		},
		ValidArgsFunction: command.Complete(env, command.Images),
	}
	cmd.Flags().StringVarP(&to, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, "Save only the given platform(s)")
	return cmd
}

func parsePlatforms(values []string) ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, v := range values {
		p, err := command.ParsePlatform(v)
		if err != nil {
			return nil, err
		}
		out = append(out, *p)
	}
	return out, nil
}

// NewLoad is `tare load`.
func NewLoad(env *command.Env) *cobra.Command {
	var from string
	var quiet bool
	var platforms []string
	cmd := &cobra.Command{
		Use: "load [OPTIONS]", Short: "Load an image from a tar archive or STDIN", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in := env.Stdin
			if from != "" {
				f, err := os.Open(from)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			} else if env.StdinTTY() {
				return errors.New("requested load from stdin, but stdin is empty")
			}
			opts := []client.ImageLoadOption{client.ImageLoadWithQuiet(quiet || !env.StdoutTTY())}
			ps, err := parsePlatforms(platforms)
			if err != nil {
				return err
			}
			if len(ps) > 0 {
				opts = append(opts, client.ImageLoadWithPlatforms(ps...))
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.ImageLoad(cmd.Context(), in, opts...)
			if err != nil {
				return err
			}
			defer res.Close()
			return output.Progress(res, env.Stdout, output.TerminalOf(env.Stdout), nil)
		},
	}
	cmd.Flags().StringVarP(&from, "input", "i", "", "Read from tar archive file, instead of STDIN")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, "Load only the given platform(s)")
	return cmd
}

// NewImport is `tare import`.
func NewImport(env *command.Env) *cobra.Command {
	var o client.ImageImportOptions
	var platform string
	cmd := &cobra.Command{
		Use: "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]", Short: "Import the contents from a tarball to create a filesystem image", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref := ""
			if len(args) > 1 {
				ref = args[1]
			}
			src := client.ImageImportSource{SourceName: args[0]}
			if args[0] == "-" {
				src.Source = env.Stdin
			} else if f, err := os.Open(args[0]); err == nil {
				defer f.Close()
				src = client.ImageImportSource{Source: f, SourceName: "-"}
			} else if !isURL(args[0]) {
				return err
			}
			if platform != "" {
				p, err := command.ParsePlatform(platform)
				if err != nil {
					return err
				}
				o.Platform = *p
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.ImageImport(cmd.Context(), src, ref, o)
			if err != nil {
				return err
			}
			defer res.Close()
			if err := output.Progress(res, env.Stdout, output.TerminalOf(env.Stdout), nil); err != nil {
				return fmt.Errorf("cannot import %s: %w", args[0], err)
			}
			return nil
		},
	}
	fs := cmd.Flags()
	command.List(fs, &o.Changes, "change", "c", "Apply Dockerfile instruction to the created image")
	fs.StringVarP(&o.Message, "message", "m", "", "Set commit message for imported image")
	fs.StringVar(&platform, "platform", "", "Set platform if server is multi-platform capable")
	return cmd
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}
