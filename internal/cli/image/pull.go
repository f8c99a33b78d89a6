// Package image is the commands about images: pull, push, build, images, save and the rest.
package image

import (
	"context"
	"io"

	"tare/internal/cli/command"
)

// Pull fetches an image and shows its progress on w, unless quiet.
func Pull(ctx context.Context, env *command.Env, ref, platform string, quiet bool, w io.Writer) error {
	panic("written next")
}
