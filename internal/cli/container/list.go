package container

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewList is `tare ps`, also `tare container ls`.
func NewList(env *command.Env) *cobra.Command { return newList(env, "ls", "list", "ps") }

// NewPS is `tare ps`.
func NewPS(env *command.Env) *cobra.Command { return newList(env, "ps") }

func newList(env *command.Env, name string, aliases ...string) *cobra.Command {
	var o client.ContainerListOptions
	var filters []string
	var format string
	var full, quiet, latest, tree bool
	cmd := &cobra.Command{
		Use: name + " [OPTIONS]", Aliases: aliases, Short: "List containers", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Filters = command.Filters(filters)
			if latest {
				o.Limit = 1
			}
			if format != "" && sized().MatchString(format) {
				o.Size = true
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.ContainerList(cmd.Context(), o)
			if err != nil {
				return err
			}
			if tree {
				return printTree(env.Out(), res.Items)
			}
			return Table(full, o.Size).Print(env.Out(), format, quiet, res.Items)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.All, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVarP(&o.Size, "size", "s", false, "Display total file sizes")
	fs.IntVarP(&o.Limit, "last", "n", -1, "Show n last created containers (includes all states)")
	fs.BoolVarP(&latest, "latest", "l", false, "Show the latest created container (includes all states)")
	fs.BoolVar(&full, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only display container IDs")
	fs.BoolVar(&tree, "tree", false, "Show containers below their Compose projects")
	cmd.MarkFlagsMutuallyExclusive("tree", "quiet")
	command.FilterFlag(fs, &filters)
	command.CompleteWords(cmd, "filter", "ancestor=", "before=", "exited=", "expose=", "health=", "id=", "is-task=", "label=", "name=", "network=", "publish=", "since=", "status=", "volume=")
	command.FormatFlag(fs, &format)
	return cmd
}

// sized matches templates that show the size, which costs the engine a walk over the files.
var sized = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\.Size\b|json +\. *}`) })

// Table shows containers.
func Table(full, size bool) output.Table[container.Summary] {
	type row = container.Summary
	def := `table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}`
	if size {
		def += `\t{{.Size}}`
	}
	return output.Table[row]{Default: def, Quiet: `{{.ID}}`, Raw: rawFormat(size), RawQuiet: `container_id: {{.ID}}`, Labels: func(s row) map[string]string { return s.Labels }, Columns: []output.Column[row]{
		{Name: "ID", Header: "CONTAINER ID", Value: func(s row) string { return output.ID(s.ID, full) }},
		{Name: "Image", Header: "IMAGE", Value: func(s row) string {
			if s.Image == "" {
				return "<no image>"
			}
			return s.Image
		}},
		{Name: "Command", Header: "COMMAND", Value: func(s row) string {
			if full {
				return strconv.Quote(s.Command)
			}
			return strconv.Quote(output.Ellipsis(s.Command, 20))
		}},
		{Name: "CreatedAt", Header: "CREATED AT", Value: func(s row) string { return time.Unix(s.Created, 0).String() }},
		{Name: "RunningFor", Header: "CREATED", Value: func(s row) string { return output.Age(time.Unix(s.Created, 0)) }},
		{Name: "Status", Header: "STATUS", Value: func(s row) string { return s.Status }},
		{Name: "State", Header: "STATE", Value: func(s row) string { return string(s.State) }},
		{Name: "Ports", Header: "PORTS", Value: func(s row) string { return Ports(s.Ports) }},
		{Name: "Names", Header: "NAMES", Value: func(s row) string {
			var names []string
			for _, n := range s.Names {
				if n = strings.TrimPrefix(n, "/"); full || !strings.Contains(n, "/") {
					names = append(names, n)
				}
			}
			return strings.Join(names, ",")
		}},
		{Name: "Size", Header: "SIZE", Value: func(s row) string {
			rw := units.HumanSizeWithPrecision(float64(s.SizeRw), 3)
			if s.SizeRootFs > 0 {
				return fmt.Sprintf("%s (virtual %s)", rw, units.HumanSizeWithPrecision(float64(s.SizeRootFs), 3))
			}
			return rw
		}},
		{Name: "Labels", Header: "LABELS", Value: func(s row) string { return command.Labels(s.Labels) }},
		{Name: "Mounts", Header: "MOUNTS", Value: func(s row) string {
			var out []string
			for _, m := range s.Mounts {
				n := m.Name
				if n == "" {
					n = m.Source
				}
				if !full {
					n = output.Ellipsis(n, 15)
				}
				out = append(out, n)
			}
			return strings.Join(out, ",")
		}},
		{Name: "LocalVolumes", Header: "LOCAL VOLUMES", Value: func(s row) string {
			n := 0
			for _, m := range s.Mounts {
				if m.Driver == "local" {
					n++
				}
			}
			return strconv.Itoa(n)
		}},
		{Name: "Networks", Header: "NETWORKS", Value: func(s row) string {
			if s.NetworkSettings == nil {
				return ""
			}
			var out []string
			for n := range s.NetworkSettings.Networks {
				out = append(out, n)
			}
			slices.Sort(out)
			return strings.Join(out, ",")
		}},
		{Name: "Platform", Header: "PLATFORM", Any: func(s row) any {
			if m := s.ImageManifestDescriptor; m != nil && m.Platform != nil {
				return platforms(*m.Platform)
			}
			return nil
		}},
	}}
}

func platforms(p ocispec.Platform) string {
	return strings.TrimSuffix(path.Join(p.OS, p.Architecture, p.Variant), "/")
}

func rawFormat(size bool) string {
	raw := `container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{.State}}\nstatus: {{.Status}}\n` +
		`names: {{.Names}}\nlabels:{{pad .Labels 1 0}}\nports:{{pad .Ports 1 0}}\n`
	if size {
		raw += `size: {{.Size}}\n`
	}
	return raw
}

// Ports shows ports as `ps` does, with neighbouring ones joined: "0.0.0.0:8080-8081->80-81/tcp, 443/tcp".
func Ports(ports []container.PortSummary) string {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b container.PortSummary) int {
		switch {
		case a.PrivatePort != b.PrivatePort:
			return int(a.PrivatePort) - int(b.PrivatePort)
		case a.Type != b.Type:
			return strings.Compare(a.Type, b.Type)
		case a.IP != b.IP:
			return a.IP.Compare(b.IP)
		}
		return int(a.PublicPort) - int(b.PublicPort)
	})
	type span struct {
		first, last container.PortSummary
	}
	var spans []span
next:
	for _, p := range ports {
		for i := range spans {
			l := spans[i].last
			follows := p.IP == l.IP && p.Type == l.Type && p.PrivatePort == l.PrivatePort+1
			if follows && (p.PublicPort == 0 && l.PublicPort == 0 || p.PublicPort != 0 && p.PublicPort == l.PublicPort+1) {
				spans[i].last = p
				continue next
			}
		}
		spans = append(spans, span{p, p})
	}
	var out []string
	for _, s := range spans {
		private, public := ranged(s.first.PrivatePort, s.last.PrivatePort), ranged(s.first.PublicPort, s.last.PublicPort)
		if s.first.PublicPort == 0 {
			out = append(out, private+"/"+s.first.Type)
			continue
		}
		host := s.first.IP.String()
		if s.first.IP.Is6() {
			host = "[" + host + "]"
		}
		out = append(out, fmt.Sprintf("%s:%s->%s/%s", host, public, private, s.first.Type))
	}
	return strings.Join(out, ", ")
}

func ranged(a, b uint16) string {
	if a == b {
		return strconv.Itoa(int(a))
	}
	return fmt.Sprintf("%d-%d", a, b)
}
