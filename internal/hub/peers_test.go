package hub

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"tare/internal/test/images"
)

// TestSkopeoCopiesInAndOut pushes and pulls with another implementation of the specification.
func TestSkopeoCopiesInAndOut(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Fatal("this test needs skopeo: test/deps.sh installs it")
	}
	r := start(t)
	host := strings.TrimPrefix(r.url, "http://")
	for _, o := range []images.Options{{Layers: 3, FilesPerLayer: 50}, {Layers: 2, Docker: true, Seed: 1}, {Layers: 2, Compression: "zstd", Seed: 2}} {
		img, err := images.Generate(o)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := img.WriteLayout(filepath.Join(dir, "in"), "v1"); err != nil {
			t.Fatal(err)
		}
		run := func(args ...string) {
			t.Helper()
			cmd := exec.Command(skopeo, append([]string{"--insecure-policy", "--tmpdir", dir}, args...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("skopeo %v: %v\n%s", args, err, out)
			}
		}
		if o.Docker { // an OCI layout has no Docker manifests
			if err := img.Push(r.url, "deep/er/name", "v1"); err != nil {
				t.Fatal(err)
			}
		} else {
			run("copy", "--preserve-digests", "--dest-tls-verify=false", "oci:"+filepath.Join(dir, "in")+":v1", "docker://"+host+"/deep/er/name:v1")
		}
		r.call("GET", "/v2/deep/er/name/manifests/"+img.Manifest.Digest.String(), nil).want(t, 200)
		run("copy", "--src-tls-verify=false", "docker://"+host+"/deep/er/name:v1", "dir:"+filepath.Join(dir, "out"))
		data, err := os.ReadFile(filepath.Join(dir, "out", "manifest.json"))
		if err != nil || digest.FromBytes(data) != img.Manifest.Digest {
			t.Errorf("%+v: another manifest came out: %v", o, err)
		}
		run("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+host+"/deep/er/name:v1", "docker://"+host+"/other:v1")
		run("delete", "--tls-verify=false", "docker://"+host+"/other:v1")
		r.call("GET", "/v2/other/manifests/v1", nil).want(t, 404)
	}
}
