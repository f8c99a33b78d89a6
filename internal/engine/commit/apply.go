package commit

import dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

// Apply carries out Dockerfile instructions on an image's configuration, as `docker import --change` does. Those
// that would make layers are Invalid.
func Apply(c *dockerspec.DockerOCIImageConfig, changes []string) error {
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	if c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	return apply(c, changes)
}
