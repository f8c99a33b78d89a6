package wire

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"tare/internal/base/fault"
	"tare/internal/runtime"
)

func TestFramesSurviveAnyCut(t *testing.T) {
	want := []Message{
		{ID: 1, Op: Watch},
		{ID: 2, Op: Signal, Body: Body(SignalBody{Ref: runtime.Ref{Container: "a", Exec: "b"}, Signal: 9})},
		{ID: 3, Op: Attach, FDs: 1},
		{ID: 4, Op: Start, Error: &Error{Class: "invalid", Message: "no", Errno: 2, Code: 127, Program: "x"}},
	}
	var stream []byte
	for i := range want {
		var err error
		if stream, err = Append(stream, &want[i]); err != nil {
			t.Fatal(err)
		}
	}
	for step := 1; step < len(stream); step++ {
		var d Decoder
		var got []Message
		for rest := stream; len(rest) > 0; {
			n := min(step, len(rest))
			d.Feed(rest[:n])
			rest = rest[n:]
			for {
				m, ok, err := d.Next()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				got = append(got, m)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("step %d: %s", step, diff)
		}
		if d.buf != nil {
			t.Fatalf("step %d: an idle decoder keeps %d bytes", step, cap(d.buf))
		}
	}
}

func TestErrorsKeepTheirClass(t *testing.T) {
	err := fmt.Errorf("cannot start x: %w", fault.Conflict("it runs"))
	back := FromError(err).Fault()
	if !errdefs.IsConflict(back) || back.Error() != "cannot start x: it runs" {
		t.Errorf("got %v", back)
	}
	if !errdefs.IsInternal(FromError(errors.New("odd")).Fault()) {
		t.Error("an error without class is not internal")
	}
	if !errdefs.IsInternal((&Error{Class: "of tomorrow"}).Fault()) {
		t.Error("an unknown class is not internal")
	}
}

func TestTooLongFrames(t *testing.T) {
	if _, err := Append(nil, &Message{Op: Create, Body: Body(string(bytes.Repeat([]byte("x"), MaxFrame)))}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("Append took it: %v", err)
	}
	var d Decoder
	d.Feed([]byte{0xff, 0xff, 0xff, 0xff})
	if _, _, err := d.Next(); err == nil {
		t.Error("Next took it")
	}
}

func FuzzDecoder(f *testing.F) {
	frame, _ := Append(nil, &Message{ID: 7, Op: List, Body: Body(runtime.Ref{Container: "c"})})
	f.Add(frame, 3)
	f.Add(append(frame, frame...), 9)
	f.Add([]byte{0, 0, 0, 0}, 1)
	f.Add([]byte{0, 0, 0, 2, '{', '}'}, 1)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		// The same bytes give the same messages, however they arrive.
		all := decode(t, data, len(data))
		if cut < 1 {
			cut = 1
		}
		if diff := cmp.Diff(all, decode(t, data, cut)); diff != "" {
			t.Fatal(diff)
		}
		for i := range all {
			again, err := Append(nil, &all[i])
			if err != nil {
				t.Fatalf("a decoded message does not encode: %v", err)
			}
			if n := len(decode(t, again, len(again))); n != 1 {
				t.Fatalf("%d messages in one frame", n)
			}
		}
	})
}

func decode(t *testing.T, data []byte, cut int) (out []Message) {
	t.Helper()
	var d Decoder
	for len(data) > 0 {
		n := min(cut, len(data))
		d.Feed(data[:n])
		data = data[n:]
		for {
			m, ok, err := d.Next()
			if err != nil {
				return out
			}
			if !ok {
				break
			}
			out = append(out, m)
		}
	}
	return out
}
