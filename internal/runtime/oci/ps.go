package oci

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"tare/internal/base/fault"
	"tare/internal/runtime/cgroup"
)

func ps(g *global, fs *flag.FlagSet, args []string) (int, error) {
	format := fs.String("format", "table", "table or json")
	fs.StringVar(format, "f", "table", "short for --format")
	if err := parse(fs, args, 1, -1); err != nil {
		return 1, err
	}
	r, _, err := g.load(fs.Arg(0))
	if err != nil {
		return 1, err
	}
	group, err := cgroup.Open(r.Cgroup)
	if err != nil {
		return 1, err
	}
	pids, err := group.Pids()
	if err != nil {
		return 1, err
	}
	switch *format {
	case "json":
		return 0, json.NewEncoder(g.stdout).Encode(pids)
	case "table":
	default:
		return 1, fault.Invalid("invalid format option %q", *format)
	}
	return 0, g.psTable(pids, fs.Args()[1:])
}

// psTable is the machine's own ps, less the lines of others, as runc has it; without one, a table of our own.
func (g *global) psTable(pids []int, options []string) error {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.Command("ps", options...).CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return g.ownTable(pids)
	case err != nil:
		return fault.Invalid("ps %s: %w: %s", strings.Join(options, " "), err, out)
	}
	lines := strings.Split(string(out), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return fault.Invalid("couldn't find PID field in ps output")
	}
	fmt.Fprintln(g.stdout, lines[0])
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if len(f) <= column {
			continue
		}
		pid, err := strconv.Atoi(f[column])
		if err != nil {
			return fault.Invalid("unexpected pid %q in ps output", f[column])
		}
		if slices.Contains(pids, pid) {
			fmt.Fprintln(g.stdout, line)
		}
	}
	return nil
}

func (g *global) ownTable(pids []int) error {
	w := tabwriter.NewWriter(g.stdout, 6, 1, 2, ' ', 0)
	fmt.Fprintln(w, "UID\tPID\tPPID\tCMD")
	for _, pid := range pids {
		if uid, ppid, cmd, ok := describe(pid); ok {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", uid, pid, ppid, cmd)
		}
	}
	return w.Flush()
}

func describe(pid int) (uid, ppid, cmd string, ok bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return "", "", "", false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "Uid:":
			uid = f[1]
		case "PPid:":
			ppid = f[1]
		case "Name:":
			cmd = "[" + f[1] + "]"
		}
	}
	if b, err := os.ReadFile(dir + "/cmdline"); err == nil && len(b) > 0 {
		cmd = strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
	}
	return uid, ppid, cmd, true
}
