package container

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDetachKeys(t *testing.T) {
	for in, want := range map[string][]byte{"": {16, 17}, "ctrl-x,y": {24, 'y'}, "a": {'a'}, "ctrl-@,ctrl-_": {0, 31}} {
		if got, err := parseKeys(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"nope", "ctrl-", "ctrl-1", "a,,b"} {
		if got, err := parseKeys(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
	for in, want := range map[string]int{"\x10\x11": 1, "\x10x\x11": 0, "\x10\x10\x11": 1, "a\x10\x11b\x10\x11": 2, "\x11\x10": 0} {
		n := 0
		r := &keyReader{r: iotest.OneByteReader(strings.NewReader(in)), keys: []byte{16, 17}, typed: func() { n++ }}
		if got, err := io.ReadAll(r); string(got) != in || err != nil || n != want {
			t.Errorf("%q: %d times, %q, %v", in, n, got, err)
		}
	}
}
