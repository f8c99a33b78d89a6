package output

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

type thing struct{ ID, Name string }

var things = Table[thing]{
	Default: `table {{.ID}}\t{{.Name}}`, Quiet: `{{.ID}}`,
	Columns: []Column[thing]{
		{Name: "ID", Header: "THING ID", Value: func(t thing) string { return t.ID }},
		{Name: "Name", Header: "NAME", Value: func(t thing) string { return t.Name }},
	},
}

func TestTableFormats(t *testing.T) {
	rows := []thing{{"1", "one"}, {"2", "two"}}
	for _, c := range []struct {
		format string
		quiet  bool
		want   string
	}{
		{"", false, "THING ID   NAME\n1          one\n2          two\n"},
		{"table", false, "THING ID   NAME\n1          one\n2          two\n"},
		{"", true, "1\n2\n"},
		{"{{.Name}}={{upper .Name}}", false, "one=ONE\ntwo=TWO\n"},
		{`table {{.Name}}\t{{.ID}}`, false, "NAME      THING ID\none       1\ntwo       2\n"},
		{"json", false, "{\"ID\":\"1\",\"Name\":\"one\"}\n{\"ID\":\"2\",\"Name\":\"two\"}\n"},
		{"{{json .}}", false, "{\"ID\":\"1\",\"Name\":\"one\"}\n{\"ID\":\"2\",\"Name\":\"two\"}\n"},
	} {
		var b bytes.Buffer
		if err := things.Print(&b, c.format, c.quiet, rows); err != nil {
			t.Errorf("%q: %v", c.format, err)
		} else if b.String() != c.want {
			t.Errorf("%q:\n%s\nwant\n%s", c.format, b.String(), c.want)
		}
	}
	if err := things.Print(&bytes.Buffer{}, "{{.Nope}}", false, rows); err == nil {
		t.Error("an unknown field is no error")
	}
	if err := things.Print(&bytes.Buffer{}, "{{", false, rows); err == nil || !strings.Contains(err.Error(), "template parsing error") {
		t.Errorf("broken template: %v", err)
	}
}

func TestInspectTemplatesSeeValueAndJSON(t *testing.T) {
	o := []Object{{Value: thing{"1", "one"}, JSON: []byte(`{"ID":"1","Legacy":{"IPAddress":"10.0.0.2"}}`)}}
	for format, want := range map[string]string{
		"{{.Name}}":             "one\n",
		"{{.Legacy.IPAddress}}": "10.0.0.2\n", // only the JSON has it
		"{{json .ID}}":          "\"1\"\n",
	} {
		var b bytes.Buffer
		if err := Inspect(&b, format, o); err != nil || b.String() != want {
			t.Errorf("%s: %q, %v", format, b.String(), err)
		}
	}
	var b bytes.Buffer
	if err := Inspect(&b, "", o); err != nil || !strings.HasPrefix(b.String(), "[\n    {\n        \"ID\": \"1\"") {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestProgress(t *testing.T) {
	stream := `{"status":"Pulling from x","id":"latest"}
{"status":"Downloading","id":"aa","progressDetail":{"current":5,"total":10}}
{"status":"Pull complete","id":"aa","progressDetail":{}}
{"stream":"Step 1/1 : FROM x\n"}
{"aux":{"ID":"sha256:1"}}
`
	var b bytes.Buffer
	var aux string
	err := Progress(strings.NewReader(stream), &b, nil, func(_ string, d json.RawMessage) { aux = string(d) })
	if want := "latest: Pulling from x\naa: Pull complete\nStep 1/1 : FROM x\n"; err != nil || b.String() != want {
		t.Errorf("%q, %v", b.String(), err)
	}
	if aux != `{"ID":"sha256:1"}` {
		t.Errorf("aux %s", aux)
	}
	b.Reset()
	if err := Progress(strings.NewReader(stream), &b, &Terminal{Size: func() (int, int) { return 120, 9 }}, nil); err != nil || !strings.Contains(b.String(), "[=========================>") {
		t.Errorf("%q, %v", b.String(), err)
	}
	err = Progress(strings.NewReader(`{"errorDetail":{"code":1,"message":"boom"},"error":"boom"}`), &b, nil, nil)
	if err == nil || err.Error() != "boom" {
		t.Errorf("error in the stream: %v", err)
	}
	if err := Progress(strings.NewReader(`{"status":"x"`), &b, nil, nil); err == nil {
		t.Error("a stream that breaks off is no error")
	}
}
