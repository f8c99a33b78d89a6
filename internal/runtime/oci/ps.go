package oci

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"tare/internal/base/fault"
	"tare/internal/runtime/cgroup"
)

func ps(g *global, fs *flag.FlagSet, args []string) (int, error) {
	format := fs.String("format", "table", "table or json")
	fs.StringVar(format, "f", "table", "short for --format")
	if err := parse(fs, args, 1, 1); err != nil {
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
		return 0, printJSON(g.stdout, pids)
	case "table":
	default:
		return 1, fault.Invalid("invalid format option %q", *format)
	}
	w := tabwriter.NewWriter(g.stdout, 6, 1, 2, ' ', 0)
	fmt.Fprintln(w, "UID\tPID\tPPID\tCMD")
	for _, pid := range pids {
		if uid, ppid, cmd, ok := describe(pid); ok {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", uid, pid, ppid, cmd)
		}
	}
	return 0, w.Flush()
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
