package command

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

// List registers a flag that may be repeated; its values are taken whole, commas included. Each check
// refuses values.
func List(fs *pflag.FlagSet, to *[]string, name, short, usage string, check ...func(string) error) {
	fs.VarP(&listValue{to, "list", check}, name, short, usage)
}

// Map is List for KEY=VALUE flags.
func Map(fs *pflag.FlagSet, to *[]string, name, short, usage string) {
	fs.VarP(&listValue{to, "map", nil}, name, short, usage)
}

type listValue struct {
	to     *[]string
	kind   string
	checks []func(string) error
}

func (l *listValue) String() string { return "" }
func (l *listValue) Type() string   { return l.kind }
func (l *listValue) Set(s string) error {
	for _, check := range l.checks {
		if err := check(s); err != nil {
			return err
		}
	}
	*l.to = append(*l.to, s)
	return nil
}

// Bytes is a size flag: "512m", "1g"; "-1" for unlimited.
type Bytes int64

func (b *Bytes) String() string {
	if *b == 0 {
		return ""
	}
	return units.BytesSize(float64(*b))
}

// Set reads a size.
func (b *Bytes) Set(s string) error {
	if s == "-1" {
		*b = -1
		return nil
	}
	n, err := units.RAMInBytes(s)
	*b = Bytes(n)
	return err
}

// Type is the kind of value that help shows.
func (b *Bytes) Type() string { return "bytes" }

// ContentTrustFlag accepts --disable-content-trust, whose default, true, is all there is.
func ContentTrustFlag(fs *pflag.FlagSet) {
	fs.Var(noTrust{}, "disable-content-trust", "Skip image verification")
	fs.Lookup("disable-content-trust").NoOptDefVal = "true"
	_ = fs.MarkHidden("disable-content-trust")
}

type noTrust struct{}

func (noTrust) String() string { return "true" }
func (noTrust) Type() string   { return "bool" }
func (noTrust) Set(s string) error {
	if off, err := strconv.ParseBool(s); err != nil || off {
		return err
	}
	return errors.New("content trust is not supported")
}

// FilterFlag registers -f/--filter.
func FilterFlag(fs *pflag.FlagSet, to *[]string) {
	fs.VarP(filterValue(to), "filter", "f", "Filter output based on conditions provided")
}

// PruneFilterFlag registers --filter of the prune commands, whose -f is --force.
func PruneFilterFlag(fs *pflag.FlagSet, to *[]string, usage string) {
	fs.Var(filterValue(to), "filter", usage)
}

func filterValue(to *[]string) pflag.Value {
	return &listValue{to, "filter", []func(string) error{func(s string) error {
		if !strings.Contains(s, "=") {
			return errors.New("bad format of filter (expected name=value)")
		}
		return nil
	}}}
}

// FormatFlag registers --format.
func FormatFlag(fs *pflag.FlagSet, to *string) {
	fs.StringVar(to, "format", "", `Format output using a custom template: 'table', 'table TEMPLATE', 'json', or a Go template`)
}

// Filters turns "key=value" flags into the API's form.
func Filters(flags []string) client.Filters {
	out := client.Filters{}
	for _, f := range flags {
		k, v, _ := strings.Cut(f, "=")
		out.Add(strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(v))
	}
	return out
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

// Confirm asks what only "y" answers with yes; at the end of the input it is no.
// The question to answer follows on a line of its own, or on the same if there is a space for it.
func (e *Env) Confirm(question string) bool {
	if !strings.HasSuffix(question, " ") {
		question += "\n"
	}
	fmt.Fprintf(e.Stdout, "WARNING! %sAre you sure you want to continue? [y/N] ", question)
	line, _ := bufio.NewReader(e.Stdin).ReadString('\n')
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
