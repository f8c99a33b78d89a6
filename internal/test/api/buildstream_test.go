package api

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"testing"

	"github.com/moby/moby/client"

	"tare/internal/test/harness"
)

// docker-py finds the built image in a message of its own.
func TestBuildTellsTheImageInAMessageOfItsOwn(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	e.Tools()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	file := "FROM tools\nLABEL a=b\n"
	if err := w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(file))}); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, file)
	w.Close()
	res, err := e.Client.ImageBuild(t.Context(), &buf, client.ImageBuildOptions{Tags: []string{"one", "two"}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	built := regexp.MustCompile(`(^Successfully built |sha256:)([0-9a-f]+)\n$`)
	found := 0
	for dec := json.NewDecoder(res.Body); ; {
		var m struct{ Stream string }
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if built.MatchString(m.Stream) {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d messages tell the image", found)
	}
}
