// Package archive moves images in and out of tar files.
//
//	docker-archive   manifest.json names config and layer tars (`docker save`, skopeo, podman, kaniko)
//	OCI archive      an OCI image layout in a tar: index.json, blobs/
//	root tar         the files of one root file system (import)
//
// Save writes one file that is both archives, as Docker 25 and newer do. Blobs and manifests are those of the
// store, byte for byte, so what is loaded elsewhere has the same digests. Load reads either, in any order of
// entries and from a pipe: blobs go into the blob store and layer tars into the layer store as they
// come by. Every digest is verified; what a failed load brought in is removed.
package archive

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Names in an archive.
const (
	manifestFile     = "manifest.json"
	repositoriesFile = "repositories"
	blobFolder       = "blobs"
)

// annotationName is containerd's annotation for a full name; ref.name is then the tag only.
const annotationName = "io.containerd.image.name"

// item is one image in manifest.json.
type item struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// blobName is where a blob lies in an archive.
func blobName(d digest.Digest) string {
	return blobFolder + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

// layout is the content of oci-layout.
func layout() []byte {
	data, _ := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	return data
}
