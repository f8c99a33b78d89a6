package oci

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"tare/internal/base/fault"
)

func list(g *global, flags *flag.FlagSet, args []string) (int, error) {
	format := flags.String("format", "table", "table or json")
	flags.StringVar(format, "f", "table", "short for --format")
	quiet := flags.Bool("quiet", false, "ids only")
	flags.BoolVar(quiet, "q", false, "short for --quiet")
	if err := parse(flags, args, 0, 0); err != nil {
		return 1, err
	}
	entries, err := os.ReadDir(g.root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 1, fault.Internal("cannot list containers: %w", err)
	}
	var records []*record
	for _, e := range entries {
		if r, _, err := g.load(e.Name()); err == nil {
			records = append(records, r)
		}
	}
	switch {
	case *quiet:
		for _, r := range records {
			fmt.Fprintln(g.stdout, r.ID)
		}
		return 0, nil
	case *format == "json":
		var list []told // null where there are none, as runc has it
		for _, r := range records {
			list = append(list, r.told)
		}
		return 0, json.NewEncoder(g.stdout).Encode(list)
	case *format != "table":
		return 1, fault.Invalid("invalid format option %q", *format)
	}
	w := tabwriter.NewWriter(g.stdout, 12, 1, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
	for _, r := range records {
		owner := r.Owner
		if owner == "" {
			owner = "#0"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", r.ID, r.Pid, r.Status, r.Bundle, r.Created.Format(time.RFC3339Nano), owner)
	}
	return 0, w.Flush()
}
