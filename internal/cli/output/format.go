// Package output prints results: tables for people, Go templates and JSON for
// programs, sizes and ages in Docker's words, progress of long work.
package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"
)

// Column is one column of a table. Name is also the field in templates and JSON.
type Column[T any] struct {
	Name   string // "ID"
	Header string // "CONTAINER ID"
	Value  func(T) string
	Any    func(T) any // instead of Value, for what is no text in JSON
}

// Table is how a list of T is shown.
type Table[T any] struct {
	Columns []Column[T]
	// Default is the template used without --format: "table {{.ID}}\t{{.Names}}".
	Default string
	// Quiet is the template for -q.
	Quiet string
	// Raw is the template of --format raw, RawQuiet with -q too; "" if there is none.
	Raw, RawQuiet string
	// Labels makes {{.Label "key"}} of a template, nil if T has no labels.
	Labels func(T) map[string]string
}

// Print shows rows by format: "" (the default), "table" or "table TEMPLATE", "json", "raw", or a template.
func (t Table[T]) Print(w io.Writer, format string, quiet bool, rows []T) error {
	switch {
	case format == "" || format == "table":
		if format = t.Default; quiet {
			format = t.Quiet
		}
	case format == "raw" && t.Raw != "":
		if format = t.Raw; quiet {
			format = t.RawQuiet
		}
	case format == "json":
		format = "{{json .}}"
	}
	text, table := strings.CutPrefix(format, "table ")
	tmpl, err := Parse(text)
	if err != nil {
		return err
	}
	// All or nothing: a template that fails at the second row prints no first one.
	var buf bytes.Buffer
	out := io.Writer(&buf)
	var tw *tabwriter.Writer
	if table {
		tw = tabwriter.NewWriter(&buf, 10, 1, 3, ' ', 0)
		out = tw
		headers := Cells{"": func(key string) string { return key }}
		for _, c := range t.Columns {
			headers[c.Name] = c.Header
		}
		if err := Execute(out, tmpl, headers); err != nil {
			return err
		}
	}
	for _, r := range rows {
		if err := Execute(out, tmpl, t.Row(r)); err != nil {
			return err
		}
	}
	if tw != nil {
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	_, err = buf.WriteTo(w)
	return err
}

// Row is one line by its columns.
func (t Table[T]) Row(r T) Cells {
	m := make(Cells, len(t.Columns)+1)
	for _, c := range t.Columns {
		if c.Any != nil {
			m[c.Name] = c.Any(r)
			continue
		}
		m[c.Name] = c.Value(r)
	}
	m[""] = func(key string) string {
		if t.Labels == nil {
			return ""
		}
		return t.Labels(r)[key]
	}
	return m
}

// Rows are lines by their columns.
func (t Table[T]) Rows(all []T) []Cells {
	out := make([]Cells, len(all))
	for i, r := range all {
		out[i] = t.Row(r)
	}
	return out
}

// Cells is one line as templates see it: column → text, and "" → the labels.
type Cells map[string]any

// Label is the value of a label, and in the header line its key.
func (c Cells) Label(key string) string { return c[""].(func(string) string)(key) }

// MarshalJSON leaves out the labels' function: the column Labels has them.
func (c Cells) MarshalJSON() ([]byte, error) {
	m := maps.Clone(map[string]any(c))
	delete(m, "")
	return json.Marshal(m)
}

// Execute writes what the template makes of data, and a newline, or nothing.
func Execute(w io.Writer, tmpl *template.Template, data any) error {
	var buf bytes.Buffer
	if err := tmpl.Execute(&buf, data); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	buf.WriteByte('\n')
	_, err := w.Write(buf.Bytes())
	return err
}

var functions = template.FuncMap{
	"json": func(v any) (string, error) {
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		err := enc.Encode(v)
		return strings.TrimSpace(buf.String()), err
	},
	"split": strings.Split,
	"join":  strings.Join,
	"title": func(s string) string {
		if s == "" {
			return s
		}
		return strings.ToUpper(s[:1]) + s[1:]
	},
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"pad": func(s string, left, right int) string {
		if s == "" {
			return s
		}
		return strings.Repeat(" ", left) + s + strings.Repeat(" ", right)
	},
	"println":  func(args ...any) string { return fmt.Sprintln(args...) },
	"truncate": func(s string, n int) string { return s[:min(len(s), n)] },
}

// Parse reads a --format template with Docker's functions (json, split, join,
// title, lower, upper, pad, println, truncate) and its \t and \n escapes.
func Parse(text string) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("").Option("missingkey=error").Funcs(functions).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return t, nil
}

// TemplateError is of a template of `inspect` that can't be read.
type TemplateError struct{ err error }

func (e *TemplateError) Error() string { return e.err.Error() }

// Inspect prints objects as `inspect` does: indented JSON in one array, or each
// through the template. The template sees the Go value and, where that has no such
// field, the JSON as it came from the engine.
func Inspect(w io.Writer, format string, objects []Object) error {
	switch format {
	case "", "json":
		all := make([]json.RawMessage, len(objects))
		for i, o := range objects {
			all[i] = o.raw()
		}
		data, err := json.Marshal(all)
		if err != nil {
			return err
		}
		if format == "json" {
			_, err := fmt.Fprintf(w, "%s\n", data)
			return err
		}
		var buf bytes.Buffer
		if err := json.Indent(&buf, data, "", "    "); err != nil {
			return err
		}
		buf.WriteByte('\n')
		_, err = w.Write(buf.Bytes())
		return err
	}
	tmpl, err := Parse(format)
	if err != nil {
		return &TemplateError{err}
	}
	for _, o := range objects {
		if err := o.template(w, tmpl); err != nil {
			return err
		}
	}
	return nil
}

// Object is one inspected thing: the decoded value, and its JSON if that is known.
type Object struct {
	Value any
	JSON  []byte
}

func (o Object) raw() json.RawMessage {
	if len(o.JSON) > 0 {
		return o.JSON
	}
	data, err := json.Marshal(o.Value)
	if err != nil {
		return json.RawMessage("null")
	}
	return data
}

func (o Object) template(w io.Writer, tmpl *template.Template) error {
	var buf bytes.Buffer
	err := tmpl.Execute(&buf, reflect.Indirect(reflect.ValueOf(o.Value)).Interface())
	if err != nil {
		var generic any
		dec := json.NewDecoder(bytes.NewReader(o.raw()))
		dec.UseNumber()
		if jsonErr := dec.Decode(&generic); jsonErr != nil {
			return err
		}
		buf.Reset()
		if err := tmpl.Execute(&buf, generic); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
	}
	buf.WriteByte('\n')
	_, err = w.Write(buf.Bytes())
	return err
}
