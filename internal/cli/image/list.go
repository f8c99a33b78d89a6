package image

import (
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewList is `tare image ls`.
func NewList(env *command.Env) *cobra.Command { return newList(env, "ls", "list") }

// NewImages is `tare images`.
func NewImages(env *command.Env) *cobra.Command { return newList(env, "images") }

// Line is one name of an image.
type Line struct {
	image.Summary
	repository, tag, digest string
}

func newList(env *command.Env, name string, aliases ...string) *cobra.Command {
	var o client.ImageListOptions
	var filters []string
	var format string
	var full, quiet, digests bool
	cmd := &cobra.Command{
		Use: name + " [OPTIONS] [REPOSITORY[:TAG]]", Aliases: aliases, Short: "List images", Args: command.MaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Filters = command.Filters(filters)
			if len(args) == 1 {
				o.Filters.Add("reference", args[0])
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.ImageList(cmd.Context(), o)
			if err != nil {
				return err
			}
			return Table(full, digests).Print(env.Out(), format, quiet, lines(res.Items, digests))
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.All, "all", "a", false, "Show all images (default hides intermediate and dangling images)")
	fs.BoolVar(&digests, "digests", false, "Show digests")
	fs.BoolVar(&full, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	cmd.ValidArgsFunction = command.CompleteArgs(env, command.Images)
	command.FilterFlag(fs, &filters)
	command.CompleteWords(cmd, "filter", "before=", "dangling=", "label=", "reference=", "since=", "until=")
	command.FormatFlag(fs, &format)
	return cmd
}

// Lines are images with their first name each, as `system df` shows them.
func Lines(items []image.Summary) []Line {
	var out []Line
	for _, s := range items {
		s.RepoTags = s.RepoTags[:min(len(s.RepoTags), 1)]
		s.RepoDigests = s.RepoDigests[:min(len(s.RepoDigests), 1)]
		for _, l := range lines([]image.Summary{s}, false) {
			l.digest = ""
			out = append(out, l)
		}
	}
	return out
}

// lines makes one line for each name; with digests one for each name and digest.
func lines(items []image.Summary, digests bool) []Line {
	var out []Line
	for _, s := range items {
		digestOf := map[string]string{}
		for _, d := range s.RepoDigests {
			repo, dg, _ := strings.Cut(d, "@")
			digestOf[repo] = dg
		}
		n := len(out)
		for _, t := range s.RepoTags {
			i := strings.LastIndexByte(t, ':')
			if i < 0 || t == "<none>:<none>" {
				continue
			}
			out = append(out, Line{s, t[:i], t[i+1:], digestOf[t[:i]]})
		}
		if len(out) > n {
			continue
		}
		if len(digestOf) == 0 {
			out = append(out, Line{s, "<none>", "<none>", ""})
		}
		for repo, dg := range digestOf {
			out = append(out, Line{s, repo, "<none>", dg})
			if !digests {
				break
			}
		}
	}
	return out
}

func none(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

// Table shows the names of images.
func Table(full, digests bool) output.Table[Line] {
	def := `table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
	if digests {
		def = `table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
	}
	raw := `repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n`
	if digests {
		raw = strings.Replace(raw, `image_id`, `{{if .Digest}}digest: {{.Digest}}\n{{end}}image_id`, 1)
	}
	return output.Table[Line]{Default: def, Quiet: `{{.ID}}`, Raw: raw, RawQuiet: `image_id: {{.ID}}`, Columns: []output.Column[Line]{
		{Name: "ID", Header: "IMAGE ID", Value: func(l Line) string { return output.ID(l.ID, full) }},
		{Name: "Repository", Header: "REPOSITORY", Value: func(l Line) string { return l.repository }},
		{Name: "Tag", Header: "TAG", Value: func(l Line) string { return l.tag }},
		{Name: "Digest", Header: "DIGEST", Value: func(l Line) string { return none(l.digest) }},
		{Name: "CreatedSince", Header: "CREATED", Value: func(l Line) string {
			if l.Created <= 0 {
				return "N/A"
			}
			return output.Age(time.Unix(l.Created, 0))
		}},
		{Name: "CreatedAt", Header: "CREATED AT", Value: func(l Line) string { return time.Unix(l.Created, 0).String() }},
		{Name: "Size", Header: "SIZE", Value: func(l Line) string { return output.Size(l.Size) }},
		{Name: "VirtualSize", Header: "SIZE", Value: func(l Line) string { return units.HumanSize(float64(l.Size)) }},
		{Name: "SharedSize", Header: "SHARED SIZE", Value: func(l Line) string { return sizeOrNA(l.SharedSize) }},
		{Name: "UniqueSize", Header: "UNIQUE SIZE", Value: func(l Line) string {
			if l.SharedSize < 0 {
				return "N/A"
			}
			return units.HumanSize(float64(l.Size - l.SharedSize))
		}},
		{Name: "Containers", Header: "CONTAINERS", Value: func(l Line) string {
			if l.Containers < 0 {
				return "N/A"
			}
			return output.Count(l.Containers)
		}},
	}}
}

func sizeOrNA(n int64) string {
	if n < 0 {
		return "N/A"
	}
	return output.Size(n)
}
