package system

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	containercmd "tare/internal/cli/container"
	imagecmd "tare/internal/cli/image"
	"tare/internal/cli/output"
	volumecmd "tare/internal/cli/volume"
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
				return showVerbose(env.Out(), format, du)
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
					{Name: "Size", Header: "SIZE", Value: func(r row) string { return units.HumanSize(float64(r.Size)) }},
					{Name: "Reclaimable", Header: "RECLAIMABLE", Value: func(r row) string {
						s := units.HumanSize(float64(r.Reclaimable))
						if r.Size > 0 && r.Type != "Build Cache" {
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

// showVerbose prints every object, in four tables or through a template that sees
// .Images, .Containers, .Volumes and .BuildCache.
func showVerbose(w io.Writer, format string, du client.DiskUsageResult) error {
	images, containers, volumes, records := imagecmd.Table(format != "", false), containercmd.Table(format != "", true), volumecmd.Table(), cacheTable(format != "")
	slices.SortFunc(du.BuildCache.Items, func(a, b build.CacheRecord) int {
		return cmp.Or(lastUse(a).Compare(lastUse(b)), strings.Compare(a.ID, b.ID))
	})
	lines := imagecmd.Lines(du.Images.Items)
	if format != "" && format != "table" {
		if format == "json" {
			format = "{{json .}}"
		}
		tmpl, err := output.Parse(format)
		if err != nil {
			return err
		}
		all := struct{ Images, Containers, Volumes, BuildCache []output.Cells }{
			images.Rows(lines), containers.Rows(du.Containers.Items), volumes.Rows(du.Volumes.Items), records.Rows(du.BuildCache.Items),
		}
		return tmpl.Execute(w, all)
	}
	images.Default = `table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}`
	containers.Default = `table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}`
	volumes.Default = `table {{.Name}}\t{{.Links}}\t{{.Size}}`
	for i := range du.Containers.Items {
		du.Containers.Items[i].SizeRootFs = 0 // only what is the container's own
	}
	fmt.Fprint(w, "Images space usage:\n\n")
	if err := images.Print(w, "", false, lines); err != nil {
		return err
	}
	fmt.Fprint(w, "\nContainers space usage:\n\n")
	if err := containers.Print(w, "", false, du.Containers.Items); err != nil {
		return err
	}
	fmt.Fprint(w, "\nLocal Volumes space usage:\n\n")
	if err := volumes.Print(w, "", false, du.Volumes.Items); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nBuild cache usage: %s\n\n", units.HumanSize(float64(du.BuildCache.TotalSize)))
	return records.Print(w, "", false, du.BuildCache.Items)
}

func lastUse(r build.CacheRecord) time.Time {
	if r.LastUsedAt == nil {
		return time.Time{}
	}
	return *r.LastUsedAt
}

func cacheTable(full bool) output.Table[build.CacheRecord] {
	type row = build.CacheRecord
	return output.Table[row]{
		Default: `table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}`,
		Columns: []output.Column[row]{
			{Name: "ID", Header: "CACHE ID", Value: func(r row) string { return output.ID(r.ID, full) }},
			{Name: "Parent", Header: "PARENT", Value: func(r row) string { return strings.Join(r.Parents, ", ") }},
			{Name: "CacheType", Header: "CACHE TYPE", Value: func(r row) string { return r.Type }},
			{Name: "Size", Header: "SIZE", Value: func(r row) string { return output.Size(r.Size) }},
			{Name: "CreatedAt", Header: "CREATED AT", Value: func(r row) string { return r.CreatedAt.String() }},
			{Name: "CreatedSince", Header: "CREATED", Value: func(r row) string { return output.Age(r.CreatedAt) }},
			{Name: "LastUsedAt", Header: "LAST USED AT", Value: func(r row) string {
				if r.LastUsedAt == nil {
					return ""
				}
				return r.LastUsedAt.String()
			}},
			{Name: "LastUsedSince", Header: "LAST USED", Value: func(r row) string {
				if r.LastUsedAt == nil {
					return ""
				}
				return output.Age(*r.LastUsedAt)
			}},
			{Name: "UsageCount", Header: "USAGE", Value: func(r row) string { return output.Count(int64(r.UsageCount)) }},
			{Name: "InUse", Header: "IN USE", Value: func(r row) string { return output.Bool(r.InUse) }},
			{Name: "Shared", Header: "SHARED", Value: func(r row) string { return output.Bool(r.Shared) }},
			{Name: "Description", Header: "DESCRIPTION", Value: func(r row) string { return r.Description }},
		},
	}
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
			if !force && !env.Confirm(builderWarning(o.All)) {
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

// builderWarning ends in a space: Docker asks on the same line here.
func builderWarning(all bool) string {
	if all {
		return "This will remove all build cache. "
	}
	return "This will remove all dangling build cache. "
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
