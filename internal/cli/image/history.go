package image

import (
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewHistory is `tare history`.
func NewHistory(env *command.Env) *cobra.Command {
	var format, platform string
	var human, full, quiet bool
	cmd := &cobra.Command{
		Use: "history [OPTIONS] IMAGE", Short: "Show the history of an image", Args: command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var opts []client.ImageHistoryOption
			if platform != "" {
				p, err := command.ParsePlatform(platform)
				if err != nil {
					return err
				}
				opts = append(opts, client.ImageHistoryWithPlatform(*p))
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.ImageHistory(cmd.Context(), args[0], opts...)
			if err != nil {
				return err
			}
			type row = image.HistoryResponseItem
			return output.Table[row]{
				Default: `table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`, Quiet: `{{.ID}}`,
				Columns: []output.Column[row]{
					{Name: "ID", Header: "IMAGE", Value: func(h row) string { return output.ID(h.ID, full) }},
					{Name: "CreatedSince", Header: "CREATED", Value: func(h row) string {
						if h.Created <= 0 {
							return "N/A"
						}
						if !human {
							return time.Unix(h.Created, 0).Format(time.RFC3339)
						}
						return output.Age(time.Unix(h.Created, 0))
					}},
					{Name: "CreatedAt", Header: "CREATED AT", Value: func(h row) string { return time.Unix(h.Created, 0).Format(time.RFC3339) }},
					{Name: "CreatedBy", Header: "CREATED BY", Value: func(h row) string {
						if full {
							return h.CreatedBy
						}
						return output.Ellipsis(h.CreatedBy, 45)
					}},
					{Name: "Size", Header: "SIZE", Value: func(h row) string {
						if human {
							return units.HumanSizeWithPrecision(float64(h.Size), 3)
						}
						return output.Count(h.Size)
					}},
					{Name: "Comment", Header: "COMMENT", Value: func(h row) string { return h.Comment }},
				},
			}.Print(env.Out(), format, quiet, res.Items)
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Images),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&human, "human", "H", true, "Print sizes and dates in human readable format")
	fs.BoolVar(&full, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	fs.StringVar(&platform, "platform", "", `Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	command.FormatFlag(fs, &format)
	return cmd
}
