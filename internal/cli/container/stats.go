package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewStats is `tare stats`.
func NewStats(env *command.Env) *cobra.Command {
	var all, once, full bool
	var format string
	cmd := &cobra.Command{
		Use: "stats [OPTIONS] [CONTAINER...]", Short: "Display a live stream of container(s) resource usage statistics",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			live := env.StdoutTTY() && !once
			var past histories
			if live && (format == "" || format == "table") {
				past = histories{}
			}
			for {
				rows, err := sampleAll(cmd.Context(), c, args, all)
				if err != nil {
					return err
				}
				if past != nil {
					past.add(rows)
				}
				if live {
					fmt.Fprint(env.Stdout, "\x1b[2J\x1b[H")
				}
				if err := statsTable(full, past).Print(env.Out(), format, false, rows); err != nil || once {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(time.Second):
				}
			}
		},
		ValidArgsFunction: command.Complete(env, command.Running),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVar(&once, "no-stream", false, "Disable streaming stats and only pull the first result")
	fs.BoolVar(&full, "no-trunc", false, "Do not truncate output")
	command.FormatFlag(fs, &format)
	return cmd
}

// sample is what one container used.
type sample struct {
	ref string // as it was asked for
	container.StatsResponse
}

// sampleAll asks for one sample (with the one before it) of every container at once.
func sampleAll(ctx context.Context, c *client.Client, refs []string, all bool) ([]sample, error) {
	if len(refs) == 0 {
		list, err := c.ContainerList(ctx, client.ContainerListOptions{All: all})
		if err != nil {
			return nil, err
		}
		for _, s := range list.Items {
			refs = append(refs, s.ID)
		}
	}
	rows := make([]sample, len(refs))
	errs := make([]error, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Go(func() {
			res, err := c.ContainerStats(ctx, ref, client.ContainerStatsOptions{IncludePreviousSample: true})
			if err != nil {
				errs[i] = err
				return
			}
			defer res.Body.Close()
			rows[i].ref = ref
			if err := json.NewDecoder(res.Body).Decode(&rows[i].StatsResponse); err != nil && !errors.Is(err, io.EOF) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(rows, func(r sample) bool { return r.ID == "" }), errors.Join(errs...)
}

// statsTable shows samples, with little graphs of the past if that is known.
func statsTable(full bool, past histories) output.Table[sample] {
	type row = sample
	cpu, memory := `{{.CPUPerc}}`, `{{.MemPerc}}`
	if past != nil {
		cpu, memory = cpu+` {{.CPUGraph}}`, memory+` {{.MemGraph}}`
	}
	t := output.Table[row]{
		Default: `table {{.ID}}\t{{.Name}}\t` + cpu + `\t{{.MemUsage}}\t` + memory + `\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}`,
		Columns: []output.Column[row]{
			{Name: "Container", Header: "CONTAINER", Value: func(s row) string { return s.ref }},
			{Name: "ID", Header: "CONTAINER ID", Value: func(s row) string { return output.ID(s.ID, full) }},
			{Name: "Name", Header: "NAME", Value: func(s row) string { return strings.TrimPrefix(s.Name, "/") }},
			{Name: "CPUPerc", Header: "CPU %", Value: func(s row) string { return fmt.Sprintf("%.2f%%", cpuPercent(s.StatsResponse)) }},
			{Name: "MemUsage", Header: "MEM USAGE / LIMIT", Value: func(s row) string {
				return units.BytesSize(float64(memoryInUse(s.StatsResponse))) + " / " + units.BytesSize(float64(s.MemoryStats.Limit))
			}},
			{Name: "MemPerc", Header: "MEM %", Value: func(s row) string {
				return fmt.Sprintf("%.2f%%", memoryPercent(s.StatsResponse))
			}},
			{Name: "NetIO", Header: "NET I/O", Value: func(s row) string {
				var rx, tx uint64
				for _, n := range s.Networks {
					rx, tx = rx+n.RxBytes, tx+n.TxBytes
				}
				return output.Size(int64(rx)) + " / " + output.Size(int64(tx))
			}},
			{Name: "BlockIO", Header: "BLOCK I/O", Value: func(s row) string {
				var r, w uint64
				for _, e := range s.BlkioStats.IoServiceBytesRecursive {
					switch strings.ToLower(e.Op) {
					case "read":
						r += e.Value
					case "write":
						w += e.Value
					}
				}
				return output.Size(int64(r)) + " / " + output.Size(int64(w))
			}},
			{Name: "PIDs", Header: "PIDS", Value: func(s row) string { return strconv.FormatUint(s.PidsStats.Current, 10) }},
		},
	}
	if past != nil {
		t.Columns = append(t.Columns,
			output.Column[row]{Name: "CPUGraph", Value: func(s row) string { return graph(past[s.ID].cpu, 100) }},
			output.Column[row]{Name: "MemGraph", Value: func(s row) string { return graph(past[s.ID].memory, 100) }})
	}
	return t
}

// cpuPercent is 100 for one CPU in full use since the sample before.
func cpuPercent(s container.StatsResponse) float64 {
	used := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	system := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	cpus := float64(s.CPUStats.OnlineCPUs)
	if used <= 0 || system <= 0 {
		return 0
	}
	return used / system * cpus * 100
}

// memoryInUse leaves out the page cache that the kernel could drop at once.
func memoryInUse(s container.StatsResponse) uint64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} { // v1, v2
		if v, ok := s.MemoryStats.Stats[key]; ok && v < s.MemoryStats.Usage {
			return s.MemoryStats.Usage - v
		}
	}
	return s.MemoryStats.Usage
}
