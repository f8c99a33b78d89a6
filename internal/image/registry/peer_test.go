package registry

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"tare/internal/test/images"
)

// TestDistribution speaks to Debian's docker-registry, the implementation that most registries descend from.
func TestDistribution(t *testing.T) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatal("this test needs docker-registry: test/deps.sh installs it")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	os.WriteFile(config, fmt.Appendf(nil, "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n",
		filepath.Join(dir, "data"), host), 0o644)
	cmd := exec.Command(program, "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		rs, err := http.Get("http://" + host + "/v2/")
		if err == nil {
			rs.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	img, err := images.Generate(images.Options{Layers: 2, FilesPerLayer: 30, Docker: true})
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, Config{})
	push := c.Repository(name(t, host+"/a/b"), nil, Push)
	for _, d := range append(img.Layers, img.Config) {
		if has, err := push.HasBlob(t.Context(), d.Digest); has || err != nil {
			t.Fatalf("before: %v %v", has, err)
		}
		if err := push.Upload(t.Context(), d, bytes.NewReader(img.Blobs[d.Digest]), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := push.PutManifest(t.Context(), "v1", img.Manifest.MediaType, img.Blobs[img.Manifest.Digest]); err != nil {
		t.Fatal(err)
	}
	if ok, err := c.Repository(name(t, host+"/c"), nil, Push).Mount(t.Context(), img.Config.Digest, name(t, host+"/a/b")); !ok || err != nil {
		t.Errorf("mount: %v %v", ok, err)
	}
	pull := c.Repository(name(t, host+"/a/b"), nil, Pull)
	if _, d, err := pull.Manifest(t.Context(), "v1"); err != nil || d.Digest != img.Manifest.Digest {
		t.Errorf("manifest: %v %v", d, err)
	}
	body, err := pull.Blob(t.Context(), img.Layers[1], 77)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(body); err != nil || !bytes.Equal(data, img.Blobs[img.Layers[1].Digest][77:]) {
		t.Errorf("blob: %d bytes, %v", len(data), err)
	}
	if tags, err := pull.Tags(t.Context()); err != nil || len(tags) != 1 || tags[0] != "v1" {
		t.Errorf("tags: %v %v", tags, err)
	}
	if _, _, err := pull.Manifest(t.Context(), digest.FromString("x").String()); err == nil {
		t.Error("a manifest that is not there")
	}
	// An upload that is cut short goes on there, too.
	data, d := random(t, 3<<20)
	cutting := &cutting{Reader: bytes.NewReader(data), at: 1 << 20}
	if err := push.Upload(t.Context(), d, cutting, nil); err != nil {
		t.Errorf("upload with a cut: %v", err)
	}
}

// cutting fails one read at an offset.
type cutting struct {
	*bytes.Reader
	at   int64
	done bool
}

func (c *cutting) ReadAt(p []byte, off int64) (int, error) {
	if !c.done && off >= c.at {
		c.done = true
		return 0, io.ErrUnexpectedEOF
	}
	return c.Reader.ReadAt(p, off)
}
