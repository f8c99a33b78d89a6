package contextstore

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStoreKeepsWhatOtherProgramsWrote(t *testing.T) {
	s := Open(t.TempDir())
	made := New("desktop", "mine", "unix:///x", false)
	made.Metadata["otel"] = map[string]any{"k": "v"}
	made.Endpoints["kubernetes"] = map[string]any{"Host": "https://k"}
	if err := s.Put(made, TLS{Docker: {CA: []byte("a")}}); err != nil {
		t.Fatal(err)
	}
	c, err := s.Get("desktop")
	if err != nil {
		t.Fatal(err)
	}
	c.Describe("other")
	if err := s.Put(c, nil); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get("desktop")
	if err != nil || got.Description() != "other" || got.Host() != "unix:///x" || got.Endpoints["kubernetes"]["Host"] != "https://k" || got.Metadata["otel"] == nil {
		t.Errorf("got %+v, %v", got, err)
	}
	tls, err := s.TLS("desktop")
	if err != nil || string(tls[Docker][CA]) != "a" {
		t.Errorf("TLS %v, %v", tls, err)
	}
	if st, err := os.Stat(s.TLSDir("desktop") + "/docker/ca.pem"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	if err := s.Put(got, TLS{Docker: nil}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.TLSDir("desktop")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the TLS files are still there", err)
	}
	if err := s.Remove("desktop"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("desktop"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after its removal: %v", err)
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
}

func TestExportAndImport(t *testing.T) {
	c, tls := New("one", "d", "tcp://h:1", true), TLS{Docker: {CA: []byte("ca"), Key: []byte("key")}}
	var buf bytes.Buffer
	if err := Export(&buf, c, tls); err != nil {
		t.Fatal(err)
	}
	got, gotTLS, err := Import(&buf, "two")
	if err != nil {
		t.Fatal(err)
	}
	c.Name = "two"
	if diff := cmp.Diff(c, got) + cmp.Diff(tls, gotTLS); diff != "" {
		t.Error(diff)
	}
}

func TestImportRefuses(t *testing.T) {
	tarOf := func(h tar.Header, content string) []byte {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(content))
		w.Close()
		return buf.Bytes()
	}
	zipOf := func(name string, size int) []byte {
		var buf bytes.Buffer
		w := zip.NewWriter(&buf)
		e, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = e.Write(make([]byte, size))
		w.Close()
		return buf.Bytes()
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"a way out":     {tarOf(tar.Header{Name: "tls/../../x", Typeflag: tar.TypeReg}, "x"), "unexpected entry"},
		"a deep one":    {tarOf(tar.Header{Name: "tls/docker/../../../x", Typeflag: tar.TypeReg}, "x"), "unexpected entry"},
		"a link":        {tarOf(tar.Header{Name: "meta.json", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, ""), "neither a file nor a folder"},
		"nothing":       {nil, "no meta.json"},
		"no JSON":       {tarOf(tar.Header{Name: "meta.json", Typeflag: tar.TypeReg}, "x"), "invalid character"},
		"a zip bomb":    {zipOf("meta.json", archiveLimit+1), "larger than"},
		"a large one":   {make([]byte, archiveLimit+1), "larger than"},
		"a broken zip":  {[]byte("PKx"), "zip"},
		"wrong file":    {zipOf("other", 1), "unexpected entry"},
		"a broken tar":  {[]byte("xxxx"), "unexpected EOF"},
		"no TLS folder": {tarOf(tar.Header{Name: "tls/x", Typeflag: tar.TypeReg}, ""), "unexpected entry"},
	} {
		if _, _, err := Import(bytes.NewReader(c.data), "x"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzImport(f *testing.F) {
	var buf bytes.Buffer
	if err := Export(&buf, New("a", "b", "tcp://x", false), TLS{Docker: {CA: []byte("x")}}); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add([]byte("PK\x05\x06" + strings.Repeat("\x00", 18)))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, tls, err := Import(bytes.NewReader(data), "x")
		if err != nil {
			return
		}
		for endpoint, contents := range tls {
			for name := range contents {
				if !plain(endpoint) || !plain(name) || strings.Contains(endpoint+name, "/") {
					t.Errorf("escapes: %q %q", endpoint, name)
				}
			}
		}
	})
}
