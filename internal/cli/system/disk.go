package system

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// kindUsage is one line of `system df`.
type kindUsage struct {
	Type              string
	Total, Active     int64
	Size, Reclaimable int64
}

// NewDiskUsage is `tare system df`.
func NewDiskUsage(env *command.Env) *cobra.Command {
	var format string
	var verbose bool
	cmd := &cobra.Command{
		Use: "df [OPTIONS]", Short: "Show disk usage", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			du, err := c.DiskUsage(cmd.Context(), client.DiskUsageOptions{Containers: true, Images: true, BuildCache: true, Volumes: true, Verbose: verbose})
			if err != nil {
				return err
			}
			if verbose {
				return showVerbose(env.Out(), du)
			}
			rows := []kindUsage{
				{"Images", du.Images.TotalCount, du.Images.ActiveCount, du.Images.TotalSize, du.Images.Reclaimable},
				{"Containers", du.Containers.TotalCount, du.Containers.ActiveCount, du.Containers.TotalSize, du.Containers.Reclaimable},
				{"Local Volumes", du.Volumes.TotalCount, du.Volumes.ActiveCount, du.Volumes.TotalSize, du.Volumes.Reclaimable},
				{"Build Cache", du.BuildCache.TotalCount, du.BuildCache.ActiveCount, du.BuildCache.TotalSize, du.BuildCache.Reclaimable},
			}
			type row = kindUsage
			return output.Table[row]{
				Default: `table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}`,
				Columns: []output.Column[row]{
					{Name: "Type", Header: "TYPE", Value: func(r row) string { return r.Type }},
					{Name: "TotalCount", Header: "TOTAL", Value: func(r row) string { return output.Count(r.Total) }},
					{Name: "Active", Header: "ACTIVE", Value: func(r row) string { return output.Count(r.Active) }},
					{Name: "Size", Header: "SIZE", Value: func(r row) string { return output.Size(r.Size) }},
					{Name: "Reclaimable", Header: "RECLAIMABLE", Value: func(r row) string {
						s := output.Size(r.Reclaimable)
						if r.Size > 0 {
							s += fmt.Sprintf(" (%d%%)", r.Reclaimable*100/r.Size)
						}
						return s
					}},
				},
			}.Print(env.Out(), format, false, rows)
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	command.FormatFlag(cmd.Flags(), &format)
	return cmd
}

func showVerbose(w io.Writer, du client.DiskUsageResult) error {
	fmt.Fprint(w, "Images space usage:\n\n")
	err := output.Table[image.Summary]{
		Default: `table {{.Names}}\t{{.ID}}\t{{.Created}}\t{{.Size}}\t{{.Shared}}\t{{.Containers}}`,
		Columns: []output.Column[image.Summary]{
			{Name: "Names", Header: "REPOSITORY:TAG", Value: func(i image.Summary) string {
				if len(i.RepoTags) == 0 {
					return "<none>"
				}
				return strings.Join(i.RepoTags, ",")
			}},
			{Name: "ID", Header: "IMAGE ID", Value: func(i image.Summary) string { return output.ID(i.ID, false) }},
			{Name: "Created", Header: "CREATED", Value: func(i image.Summary) string { return output.Age(time.Unix(i.Created, 0)) }},
			{Name: "Size", Header: "SIZE", Value: func(i image.Summary) string { return output.Size(i.Size) }},
			{Name: "Shared", Header: "SHARED SIZE", Value: func(i image.Summary) string { return output.Size(max(i.SharedSize, 0)) }},
			{Name: "Containers", Header: "CONTAINERS", Value: func(i image.Summary) string { return output.Count(max(i.Containers, 0)) }},
		},
	}.Print(w, "", false, du.Images.Items)
	if err != nil {
		return err
	}
	fmt.Fprint(w, "\nContainers space usage:\n\n")
	err = output.Table[container.Summary]{
		Default: `table {{.ID}}\t{{.Image}}\t{{.Size}}\t{{.Created}}\t{{.Status}}\t{{.Names}}`,
		Columns: []output.Column[container.Summary]{
			{Name: "ID", Header: "CONTAINER ID", Value: func(c container.Summary) string { return output.ID(c.ID, false) }},
			{Name: "Image", Header: "IMAGE", Value: func(c container.Summary) string { return c.Image }},
			{Name: "Size", Header: "SIZE", Value: func(c container.Summary) string { return output.Size(c.SizeRw) }},
			{Name: "Created", Header: "CREATED", Value: func(c container.Summary) string { return output.Age(time.Unix(c.Created, 0)) }},
			{Name: "Status", Header: "STATUS", Value: func(c container.Summary) string { return c.Status }},
			{Name: "Names", Header: "NAMES", Value: func(c container.Summary) string {
				return strings.TrimPrefix(strings.Join(c.Names, ","), "/")
			}},
		},
	}.Print(w, "", false, du.Containers.Items)
	if err != nil {
		return err
	}
	fmt.Fprint(w, "\nLocal Volumes space usage:\n\n")
	err = output.Table[volume.Volume]{
		Default: `table {{.Name}}\t{{.Links}}\t{{.Size}}`,
		Columns: []output.Column[volume.Volume]{
			{Name: "Name", Header: "VOLUME NAME", Value: func(v volume.Volume) string { return v.Name }},
			{Name: "Links", Header: "LINKS", Value: func(v volume.Volume) string {
				if v.UsageData == nil {
					return "N/A"
				}
				return output.Count(v.UsageData.RefCount)
			}},
			{Name: "Size", Header: "SIZE", Value: func(v volume.Volume) string {
				if v.UsageData == nil {
					return "N/A"
				}
				return output.Size(v.UsageData.Size)
			}},
		},
	}.Print(w, "", false, du.Volumes.Items)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nBuild cache usage: %s\n\n", output.Size(du.BuildCache.TotalSize))
	return output.Table[build.CacheRecord]{
		Default: `table {{.ID}}\t{{.Type}}\t{{.Size}}\t{{.Created}}\t{{.Used}}\t{{.Usage}}`,
		Columns: []output.Column[build.CacheRecord]{
			{Name: "ID", Header: "CACHE ID", Value: func(r build.CacheRecord) string { return output.ID(r.ID, false) }},
			{Name: "Type", Header: "CACHE TYPE", Value: func(r build.CacheRecord) string { return r.Type }},
			{Name: "Size", Header: "SIZE", Value: func(r build.CacheRecord) string { return output.Size(r.Size) }},
			{Name: "Created", Header: "CREATED", Value: func(r build.CacheRecord) string { return output.Age(r.CreatedAt) }},
			{Name: "Used", Header: "LAST USED", Value: func(r build.CacheRecord) string {
				if r.LastUsedAt == nil {
					return ""
				}
				return output.Age(*r.LastUsedAt)
			}},
			{Name: "Usage", Header: "USAGE", Value: func(r build.CacheRecord) string { return output.Count(int64(r.UsageCount)) }},
		},
	}.Print(w, "", false, du.BuildCache.Items)
}

// NewBuilderPrune is `tare builder prune`.
func NewBuilderPrune(env *command.Env) *cobra.Command {
	var force bool
	var o client.BuildCachePruneOptions
	var filters []string
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove build cache", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Filters = command.Filters(filters)
			if !force && !env.Confirm("This will remove all dangling build cache.") {
				return nil
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.BuildCachePrune(cmd.Context(), o)
			if err != nil {
				return err
			}
			if len(res.Report.CachesDeleted) > 0 {
				fmt.Fprintln(env.Stdout, "Deleted build cache objects:")
				for _, id := range res.Report.CachesDeleted {
					fmt.Fprintln(env.Stdout, id)
				}
				fmt.Fprintln(env.Stdout)
			}
			fmt.Fprintln(env.Stdout, "Total reclaimed space:", output.Size(int64(res.Report.SpaceReclaimed)))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().BoolVarP(&o.All, "all", "a", false, "Remove all unused build cache, not just dangling ones")
	cmd.Flags().Int64Var(&o.ReservedSpace, "keep-storage", 0, "Amount of disk space to keep for cache, in bytes")
	command.PruneFilterFlag(cmd.Flags(), &filters, `Provide filter values (e.g. "until=24h")`)
	return cmd
}

// NewPrune is `tare system prune`.
func NewPrune(env *command.Env) *cobra.Command {
	var all, volumes, force bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused data", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := command.Filters(filters)
			if !force && !env.Confirm(pruneWarning(all, volumes)) {
				return nil
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			return pruneAll(cmd, env, c, f, all, volumes)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "Remove all unused images not just dangling ones")
	fs.BoolVar(&volumes, "volumes", false, "Prune anonymous volumes")
	fs.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	command.PruneFilterFlag(fs, &filters, `Provide filter values (e.g. "label=<key>=<value>")`)
	return cmd
}

func pruneWarning(all, volumes bool) string {
	w := "This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
	if volumes {
		w += "  - all anonymous volumes not used by at least one container\n"
	}
	if all {
		return w + "  - all images without at least one container associated to them\n  - all build cache\n"
	}
	return w + "  - all dangling images\n  - unused build cache\n"
}

func pruneAll(cmd *cobra.Command, env *command.Env, c *client.Client, f client.Filters, all, volumes bool) error {
	ctx := cmd.Context()
	var won uint64
	section := func(title string, names []string) {
		if len(names) == 0 {
			return
		}
		fmt.Fprintln(env.Stdout, title)
		for _, n := range names {
			fmt.Fprintln(env.Stdout, n)
		}
		fmt.Fprintln(env.Stdout)
	}
	ctrs, err := c.ContainerPrune(ctx, client.ContainerPruneOptions{Filters: f})
	if err != nil {
		return err
	}
	won += ctrs.Report.SpaceReclaimed
	section("Deleted Containers:", ctrs.Report.ContainersDeleted)
	nets, err := c.NetworkPrune(ctx, client.NetworkPruneOptions{Filters: f})
	if err != nil {
		return err
	}
	section("Deleted Networks:", nets.Report.NetworksDeleted)
	if volumes {
		vols, err := c.VolumePrune(ctx, client.VolumePruneOptions{Filters: f})
		if err != nil {
			return err
		}
		won += vols.Report.SpaceReclaimed
		section("Deleted Volumes:", vols.Report.VolumesDeleted)
	}
	imageFilters := f.Clone()
	if imageFilters == nil {
		imageFilters = client.Filters{}
	}
	if all {
		imageFilters.Add("dangling", "false")
	}
	// The cache first: it holds layers of images.
	cache, err := c.BuildCachePrune(ctx, client.BuildCachePruneOptions{All: all, Filters: f})
	if err != nil {
		return err
	}
	won += cache.Report.SpaceReclaimed
	images, err := c.ImagePrune(ctx, client.ImagePruneOptions{Filters: imageFilters})
	if err != nil {
		return err
	}
	won += images.Report.SpaceReclaimed
	var lines []string
	for _, r := range images.Report.ImagesDeleted {
		if r.Deleted != "" {
			lines = append(lines, "deleted: "+r.Deleted)
		} else {
			lines = append(lines, "untagged: "+r.Untagged)
		}
	}
	section("Deleted Images:", lines)
	section("Deleted build cache objects:", cache.Report.CachesDeleted)
	fmt.Fprintln(env.Stdout, "Total reclaimed space:", output.Size(int64(won)))
	return nil
}
