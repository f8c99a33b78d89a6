package container

import "testing"

// BenchmarkEnginePart measures what a run costs in the engine alone: the supervisor, the images and the networks are fakes.
func BenchmarkEnginePart(b *testing.B) {
	w := newWorld(b)
	for b.Loop() {
		id := w.create("", nil)
		w.start(id)
		w.runtime.exit(id, 0)
		w.wait(id, "")
		w.settle(id)
		if err := w.s.Remove(background, id, RemoveOptions{Volumes: true}); err != nil {
			b.Fatal(err)
		}
	}
}
