package command

import (
	"bufio"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

// FilterFlag registers -f/--filter.
func FilterFlag(fs *pflag.FlagSet, to *[]string) {
	fs.StringArrayVarP(to, "filter", "f", nil, "Filter output based on conditions provided")
}

// FormatFlag registers --format.
func FormatFlag(fs *pflag.FlagSet, to *string) {
	fs.StringVar(to, "format", "", `Format output: 'table', 'table TEMPLATE', 'json', or a Go template`)
}

// Filters turns "key=value" flags into the API's form.
func Filters(flags []string) (client.Filters, error) {
	out := client.Filters{}
	for _, f := range flags {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("invalid argument %q for \"-f, --filter\" flag: invalid filter %q (want <filter>=<value>)", f, f)
		}
		out.Add(strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(v))
	}
	return out, nil
}

// Labels shows labels in one cell, sorted.
func Labels(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// Confirm asks a question that only "y" answers with yes; without a terminal, or at its end, it is no.
func (e *Env) Confirm(question string) bool {
	fmt.Fprintf(e.Stdout, "WARNING! %s\nAre you sure you want to continue? [y/N] ", question)
	line, err := bufio.NewReader(e.Stdin).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(e.Stdout)
		return false
	}
	return strings.EqualFold(strings.TrimSpace(line), "y")
}

// KeyValues turns "k=v" (or "k", an empty value) into a map; the last of a key wins.
func KeyValues(kvs []string) map[string]string {
	m := make(map[string]string, len(kvs))
	for _, kv := range kvs {
		k, v, _ := strings.Cut(kv, "=")
		m[k] = v
	}
	return m
}
