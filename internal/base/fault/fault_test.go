package fault

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/containerd/errdefs"
)

func TestClassAndCauseSurviveWrapping(t *testing.T) {
	err := fmt.Errorf("cannot remove x: %w", Conflict("image x is in use: %w", io.EOF))
	if !errdefs.IsConflict(err) || !errors.Is(err, io.EOF) {
		t.Fatalf("lost class or cause: %v", err)
	}
	if got, want := err.Error(), "cannot remove x: image x is in use: EOF"; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}
