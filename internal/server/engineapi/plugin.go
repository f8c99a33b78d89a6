package engineapi

import (
	"net/http"

	"github.com/moby/moby/api/types/plugin"

	"tare/internal/base/fault"
)

// There are no plugins: reading says so, naming one finds nothing, adding one is refused.

func listPlugins(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, plugin.ListResponse{})
}

func noSuchPlugin(w http.ResponseWriter, r *http.Request) error {
	return fault.NotFound("plugin %q not found", r.PathValue("name"))
}

func noPlugins(http.ResponseWriter, *http.Request) error {
	return fault.Unsupported("plugins are not supported by this engine")
}
