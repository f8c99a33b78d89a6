package resolv

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHostIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	h := &Host{Path: path}
	if got := h.Conf(); got.Nameservers != nil {
		t.Errorf("missing file gave %v", got)
	}
	for _, want := range []string{"192.0.2.1", "192.0.2.111"} {
		os.WriteFile(path, []byte("; comment\nnameserver "+want+"\nsearch a.example b.example\noptions ndots:2 rotate\n"), 0o600)
		got := h.Conf()
		if len(got.Nameservers) != 1 || got.Nameservers[0].String() != want {
			t.Errorf("got %v, want %s", got, want)
		}
		if string(got.Bytes()) != "# Written by Tare.\nnameserver "+want+"\nsearch a.example b.example\noptions ndots:2 rotate\n" {
			t.Errorf("written %q", got.Bytes())
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("nameserver fe80::1%eth0\nsearch\noptions a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		first := Parse(b)
		again := Parse(first.Bytes())
		if len(again.Nameservers) != len(first.Nameservers) {
			t.Errorf("%v became %v", first, again)
		}
	})
}
