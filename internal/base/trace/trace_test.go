package trace

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// Not parallel: the recorder is the process's.

func TestLanes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	if err := ToFile(path); err != nil {
		t.Fatal(err)
	}
	defer ToFile("")
	ctx := Begin(context.Background(), "server", "POST", "/x", "")
	left, right := Beside(ctx), Beside(ctx)
	Step(right, "network", "join", "container", "a")
	Step(context.WithoutCancel(left), "runtime", "create", "container", "a\tb\nc")
	Step(ctx, "engine", "start", "container", "a")
	Step(context.Background(), "image", "get", "image", "of nobody")
	if err := ToFile(""); err != nil {
		t.Fatal(err)
	}
	Step(ctx, "engine", "start", "container", "not recorded")
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const want = "1\t0\tserver\tPOST\t/x\t\n" +
		"3\t1\tnetwork\tjoin\tcontainer\ta\n" +
		"2\t1\truntime\tcreate\tcontainer\ta b c\n" +
		"1\t0\tengine\tstart\tcontainer\ta\n" +
		"0\t0\timage\tget\timage\tof nobody\n"
	if string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestOffCostsNothing(t *testing.T) {
	ctx := context.Background()
	n := testing.AllocsPerRun(100, func() {
		Step(Beside(Begin(ctx, "server", "POST", "/x", "")), "image", "get", "image", "x")
	})
	if n != 0 {
		t.Errorf("%v allocations while off", n)
	}
}

func BenchmarkOff(b *testing.B) {
	ctx := context.Background()
	for b.Loop() {
		Step(ctx, "image", "get", "image", "x")
	}
}
