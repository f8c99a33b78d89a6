package output

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestLinesStayWhole(t *testing.T) {
	var out bytes.Buffer
	l := NewLines(&out)
	var all sync.WaitGroup
	var want []string
	for _, name := range []string{"a", "b", "c"} {
		s := l.Stream(name + " | ")
		var text string
		for i := range 50 {
			text += fmt.Sprintf("line %d\n", i)
			want = append(want, fmt.Sprintf("%s | line %d", name, i))
		}
		text += "the end"
		want = append(want, name+" | the end")
		all.Go(func() {
			for _, part := range slices.Collect(slices.Chunk([]byte(text), 3)) {
				if _, err := s.Write(part); err != nil {
					t.Error(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("lines are cut or lost: %q", got)
	}
}

func TestLinesOfUnboundedLength(t *testing.T) {
	var out bytes.Buffer
	s := NewLines(&out).Stream("> ")
	if _, err := io.Copy(s, strings.NewReader(strings.Repeat("x", 10*lineLimit))); err != nil {
		t.Fatal(err)
	}
	if out.Len() < 9*lineLimit {
		t.Errorf("%d bytes came out: the rest is held", out.Len())
	}
}
