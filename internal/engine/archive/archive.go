// Package archive moves files in and out of containers: cp, export, diff.
// Paths are resolved inside the container's root with openat2(RESOLVE_IN_ROOT); a
// stopped container's overlay is mounted in a private mount namespace that dies with the call.
package archive

import (
	"context"
	"io"

	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	enginecontainer "tare/internal/engine/container"
)

// Stat describes a path (HEAD /containers/{id}/archive).
func Stat(ctx context.Context, c *enginecontainer.Files, path string) (container.PathStat, error) {
	return container.PathStat{}, fault.Unsupported("")
}

// Get streams a path as a tar (GET /containers/{id}/archive). The caller closes the reader.
func Get(ctx context.Context, c *enginecontainer.Files, path string) (io.ReadCloser, container.PathStat, error) {
	return nil, container.PathStat{}, fault.Unsupported("")
}

// Put unpacks a tar into a folder of the container (PUT /containers/{id}/archive).
func Put(ctx context.Context, c *enginecontainer.Files, path string, tar io.Reader, noOverwriteDirNonDir, copyUIDGID bool) error {
	return fault.Unsupported("")
}

// Export streams the whole root file system as a tar.
func Export(ctx context.Context, c *enginecontainer.Files, w io.Writer) error {
	return fault.Unsupported("")
}

// Changes lists what differs from the image.
func Changes(ctx context.Context, c *enginecontainer.Files) ([]container.FilesystemChange, error) {
	return nil, fault.Unsupported("")
}
