package images

import "testing"

func TestTheSameOptionsGiveTheSameImage(t *testing.T) {
	o := Options{Layers: 2, FilesPerLayer: 10, FileSize: 20000}
	a, err := Generate(o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Generate(o)
	if err != nil {
		t.Fatal(err)
	}
	if a.Manifest.Digest != b.Manifest.Digest {
		t.Error("two digests for the same options")
	}
	o.Seed = 1
	c, err := Generate(o)
	if err != nil {
		t.Fatal(err)
	}
	if c.Manifest.Digest == a.Manifest.Digest {
		t.Error("another seed gives the same image")
	}
	var packed int64
	for _, l := range a.Layers {
		packed += l.Size
	}
	if ratio := float64(a.Unpacked) / float64(packed); ratio < 2 || ratio > 5 {
		t.Errorf("compresses %.1f:1, want about 3:1", ratio)
	}
}

func TestOddImagesAreThirtyAndTheSameEachTime(t *testing.T) {
	a, err := Odd([]byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Odd([]byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for i := range a {
		names[a[i].Name] = true
		if a[i].Root.Digest != b[i].Root.Digest {
			t.Errorf("%s has two digests", a[i].Name)
		}
	}
	if len(names) != 30 {
		t.Errorf("%d images of %d names", len(a), len(names))
	}
}
