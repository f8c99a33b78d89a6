package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Parse reads the command line and the configuration file. usage is where --help goes;
// its error is then pflag.ErrHelp.
func Parse(args []string, usage io.Writer) (*Config, error) {
	c := Default()
	flags := pflag.NewFlagSet("tared", pflag.ContinueOnError)
	flags.SortFlags = true
	flags.SetOutput(usage)
	flags.Usage = func() {
		fmt.Fprintf(usage, "Usage: tared [OPTIONS]\n\nThe container engine of Tare.\n\nOptions:\n%s", flags.FlagUsages())
	}
	values := map[string]*value{}
	for i := range options {
		o := &options[i]
		if o.name == "" {
			continue
		}
		v := &value{o: o}
		values[o.name] = v
		f := flags.VarPF(v, o.name, o.short, o.use)
		if o.kind == flag {
			f.NoOptDefVal = "true"
		}
	}
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument: %s", flags.Arg(0))
	}
	if v := values["config-file"]; len(v.given) > 0 {
		c.File = v.given[len(v.given)-1]
	}
	file, err := readFile(c.File, flags.Changed("config-file"))
	if err != nil {
		return nil, fmt.Errorf("unable to configure the engine with file %s: %w", c.File, err)
	}
	if err := file.conflicts(values); err != nil {
		return nil, fmt.Errorf("unable to configure the engine with file %s: %w", c.File, err)
	}
	for i := range options {
		o := &options[i]
		if err := o.apply(c, file[o.key], "in "+c.File); err != nil {
			return nil, err
		}
		if v := values[o.name]; v != nil {
			if err := o.apply(c, v.given, commandLine); err != nil {
				return nil, err
			}
		}
	}
	return c, c.finish()
}

const commandLine = "on the command line"

func (o *option) apply(c *Config, given []string, where string) error {
	if len(given) > 0 && o.set == nil {
		name := "--" + o.name
		if where != commandLine {
			name = o.key
		}
		c.Warnings = append(c.Warnings, fmt.Sprintf("option %s %s has no effect in this engine", name, where))
		return nil
	}
	for _, s := range given {
		if err := o.set(c, s); err != nil {
			name := o.name
			if name == "" {
				name = o.key
			}
			return fmt.Errorf("invalid value for %s %s: %w", name, where, err)
		}
	}
	return nil
}

// value collects what the command line gives to one option.
type value struct {
	o     *option
	given []string
}

func (v *value) Set(s string) error {
	if v.o.kind == word || v.o.kind == flag {
		v.given = nil
	}
	v.given = append(v.given, s)
	return nil
}

func (v *value) String() string {
	if v.o == nil {
		return ""
	}
	return strings.Join(v.given, ",")
}

// Type is what the help shows.
func (v *value) Type() string {
	switch v.o.kind {
	case flag:
		return "bool"
	case list:
		return "list"
	case dict:
		return "map"
	}
	return "string"
}

// directives are the file's values by key, in the flags' form.
type directives map[string][]string

// nested are objects whose members are directives themselves.
var nested = map[string]bool{"proxies": true}

// readFile decodes the configuration file. One that doesn't exist is empty, unless it was asked for.
func readFile(path string, asked bool) (directives, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := directives{}
	if strings.TrimSpace(strings.TrimPrefix(string(data), "\ufeff")) == "" {
		return d, nil
	}
	dec := json.NewDecoder(strings.NewReader(strings.TrimPrefix(string(data), "\ufeff")))
	dec.UseNumber()
	var top map[string]any
	if err := dec.Decode(&top); err != nil {
		return nil, fmt.Errorf("it is not a JSON object: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("unexpected content after the JSON object")
	}
	var unknown []string
	for key, v := range top {
		if nested[key] {
			m, ok := v.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("%s is not an object", key)
			}
			for k, v := range m {
				if err := d.read(k, v); errors.Is(err, errUnknown) {
					unknown = append(unknown, k)
				} else if err != nil {
					return nil, err
				}
			}
			continue
		}
		if err := d.read(key, v); errors.Is(err, errUnknown) {
			unknown = append(unknown, key)
		} else if err != nil {
			return nil, err
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	return d, nil
}

var errUnknown = errors.New("unknown directive")

func (d directives) read(key string, v any) error {
	i := slices.IndexFunc(options, func(o option) bool { return o.key == key && key != "" })
	if i < 0 {
		return errUnknown
	}
	values, err := options[i].fromFile(v)
	if err != nil {
		return fmt.Errorf("directive %s: %w", key, err)
	}
	d[key] = values
	return nil
}

// fromFile turns a directive's JSON into values in the flag's form.
func (o *option) fromFile(v any) ([]string, error) {
	if v == nil {
		return nil, nil
	}
	switch o.kind {
	case flag:
		b, ok := v.(bool)
		if !ok {
			return nil, fmt.Errorf("%v is neither true nor false", v)
		}
		return []string{fmt.Sprint(b)}, nil
	case list:
		a, ok := v.([]any)
		if !ok {
			return nil, fmt.Errorf("%v is not a list", v)
		}
		var values []string
		for _, e := range a {
			s, err := o.entry("", e)
			if err != nil {
				return nil, err
			}
			values = append(values, s)
		}
		return values, nil
	case dict:
		m, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%v is not an object", v)
		}
		var values []string
		for _, k := range slices.Sorted(maps.Keys(m)) {
			s, err := o.entry(k, m[k])
			if err != nil {
				return nil, err
			}
			values = append(values, s)
		}
		return values, nil
	}
	switch v := v.(type) {
	case string:
		return []string{v}, nil
	case json.Number:
		return []string{v.String()}, nil
	}
	return nil, fmt.Errorf("%v is neither a string nor a number", v)
}

func (o *option) entry(key string, v any) (string, error) {
	if o.object != nil {
		return o.object(key, v)
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%v is not a string", v)
	}
	if key != "" {
		s = key + "=" + s
	}
	return s, nil
}

// conflicts refuses what stands in both places.
func (d directives) conflicts(values map[string]*value) error {
	var twice []string
	for i := range options {
		o := &options[i]
		v := values[o.name]
		if v == nil || len(v.given) == 0 || o.key == "" {
			continue
		}
		if in, ok := d[o.key]; ok {
			twice = append(twice, fmt.Sprintf("%s: (from flag: %s, from file: %s)", o.key, strings.Join(v.given, ","), strings.Join(in, ",")))
		}
	}
	if len(twice) == 0 {
		return nil
	}
	slices.Sort(twice)
	return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(twice, ", "))
}
