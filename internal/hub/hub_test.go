package hub

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/test/images"
)

// server is a hub behind a real connection.
type server struct {
	t    *testing.T
	root string
	hub  *Hub
	srv  *httptest.Server
	url  string
}

func start(t *testing.T) *server {
	t.Helper()
	r := &server{t: t, root: t.TempDir()}
	r.open()
	t.Cleanup(func() { r.close() })
	return r
}

func (r *server) open() {
	r.t.Helper()
	h, err := Open(r.root, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.hub, r.srv = h, httptest.NewServer(h)
	r.url = r.srv.URL
}

func (r *server) close() {
	r.srv.CloseClientConnections()
	r.srv.Close()
	r.hub.Close()
}

type answer struct {
	*http.Response
	body []byte
}

// call makes a request; headers are "Name: value".
func (r *server) call(method, path string, body []byte, headers ...string) answer {
	r.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = r.url + path
	}
	rq, err := http.NewRequest(method, path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		rq.Header.Set(k, v)
	}
	rs, err := http.DefaultClient.Do(rq)
	if err != nil {
		r.t.Fatal(err)
	}
	defer rs.Body.Close()
	data, err := io.ReadAll(rs.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{rs, data}
}

// want checks the status and, for refusals, the code.
func (a answer) want(t *testing.T, status int, code ...string) answer {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("%s %s: %s, want %d: %s", a.Request.Method, a.Request.URL.Path, a.Status, status, a.body)
	}
	if len(code) > 0 {
		var e struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal(a.body, &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Code != code[0] || e.Errors[0].Message == "" {
			t.Fatalf("%s %s: error body %s, want code %s", a.Request.Method, a.Request.URL.Path, a.body, code[0])
		}
	}
	return a
}

func (a answer) header(t *testing.T, name, want string) answer {
	t.Helper()
	if got := a.Header.Get(name); got != want {
		t.Fatalf("%s %s: %s is %q, want %q", a.Request.Method, a.Request.URL.Path, name, got, want)
	}
	return a
}

// image pushes a small image and returns it.
func (r *server) image(name, tag string, o images.Options) *images.Image {
	r.t.Helper()
	img, err := images.Generate(o)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := img.Push(r.url, name, tag); err != nil {
		r.t.Fatal(err)
	}
	return img
}

func (r *server) begin(name string) string {
	r.t.Helper()
	a := r.call("POST", "/v2/"+name+"/blobs/uploads/", nil).want(r.t, 202)
	if a.Header.Get("Location") == "" {
		r.t.Fatal("no Location")
	}
	return a.Header.Get("Location")
}

func TestEnd1_Ping(t *testing.T) {
	r := start(t)
	r.call("GET", "/v2/", nil).want(t, 200).header(t, "Docker-Distribution-Api-Version", "registry/2.0")
	r.call("GET", "/nowhere", nil).want(t, 404, "NAME_UNKNOWN")
	r.call("PUT", "/v2/", nil).want(t, 405, "UNSUPPORTED")
}

func TestEnd2_PullBlob(t *testing.T) {
	r := start(t)
	img := r.image("a/b", "one", images.Options{FilesPerLayer: 5})
	l := img.Layers[0]
	content := img.Blobs[l.Digest]
	path := "/v2/a/b/blobs/" + l.Digest.String()
	a := r.call("GET", path, nil).want(t, 200).header(t, "Docker-Content-Digest", l.Digest.String())
	if !bytes.Equal(a.body, content) {
		t.Error("other bytes than pushed")
	}
	r.call("HEAD", path, nil).want(t, 200).header(t, "Content-Length", fmt.Sprint(l.Size))
	a = r.call("GET", path, nil, "Range: bytes=10-19").want(t, 206).header(t, "Content-Range", fmt.Sprintf("bytes 10-19/%d", l.Size))
	if !bytes.Equal(a.body, content[10:20]) {
		t.Error("wrong range")
	}
	r.call("GET", path, nil, fmt.Sprintf("Range: bytes=%d-", l.Size+5)).want(t, 416)
	r.call("GET", "/v2/a/b/blobs/"+digest.FromString("x").String(), nil).want(t, 404, "BLOB_UNKNOWN")
	r.call("GET", "/v2/a/b/blobs/sha256:zz", nil).want(t, 400, "DIGEST_INVALID")
	r.call("GET", "/v2/A/b/blobs/"+l.Digest.String(), nil).want(t, 400, "NAME_INVALID")
	r.call("GET", "/v2/a/../b/blobs/"+l.Digest.String(), nil).want(t, 400, "NAME_INVALID")
}

func TestIsolation_ABlobIsReadableOnlyWhereItWasPushed(t *testing.T) {
	r := start(t)
	img := r.image("private/x", "one", images.Options{})
	r.image("public/y", "one", images.Options{Seed: 7})
	l := img.Layers[0].Digest.String()
	r.call("GET", "/v2/public/y/blobs/"+l, nil).want(t, 404, "BLOB_UNKNOWN")
	r.call("HEAD", "/v2/public/y/blobs/"+l, nil).want(t, 404)
	// A manifest is no way around it.
	r.call("PUT", "/v2/public/y/manifests/steal", img.Blobs[img.Manifest.Digest],
		"Content-Type: "+img.Manifest.MediaType).want(t, 400, "MANIFEST_BLOB_UNKNOWN")
	r.call("GET", "/v2/private/blobs/"+l, nil).want(t, 404, "BLOB_UNKNOWN")
}

func TestEnd3_PullManifest(t *testing.T) {
	r := start(t)
	img := r.image("a/b", "one", images.Options{})
	for _, ref := range []string{"one", img.Manifest.Digest.String()} {
		a := r.call("GET", "/v2/a/b/manifests/"+ref, nil).want(t, 200).
			header(t, "Content-Type", img.Manifest.MediaType).header(t, "Docker-Content-Digest", img.Manifest.Digest.String())
		if digest.FromBytes(a.body) != img.Manifest.Digest {
			t.Error("not the bytes that were pushed")
		}
		a = r.call("HEAD", "/v2/a/b/manifests/"+ref, nil).want(t, 200).header(t, "Content-Length", fmt.Sprint(img.Manifest.Size))
		if len(a.body) != 0 {
			t.Error("HEAD with a body")
		}
	}
	r.call("GET", "/v2/a/b/manifests/two", nil).want(t, 404, "MANIFEST_UNKNOWN")
	r.call("GET", "/v2/a/b/manifests/"+digest.FromString("x").String(), nil).want(t, 404, "MANIFEST_UNKNOWN")
	r.call("GET", "/v2/none/manifests/"+img.Manifest.Digest.String(), nil).want(t, 404, "NAME_UNKNOWN")
	r.call("GET", "/v2/a/b/manifests/-x", nil).want(t, 404, "MANIFEST_UNKNOWN")
}

func TestEnd4b_PostMonolithic(t *testing.T) {
	r := start(t)
	data := []byte("some bytes")
	d := digest.FromBytes(data).String()
	a := r.call("POST", "/v2/x/blobs/uploads/?digest="+d, data).want(t, 201)
	r.call("GET", a.Header.Get("Location"), nil).want(t, 200)
	r.call("POST", "/v2/x/blobs/uploads/?digest="+digest.FromString("other").String(), data).want(t, 400, "DIGEST_INVALID")
	noLeftovers(t, r)
}

func TestEnd4a6_PostThenPut(t *testing.T) {
	r := start(t)
	for _, data := range [][]byte{[]byte("some bytes"), {}} {
		d := digest.FromBytes(data).String()
		at := r.begin("x")
		r.call("PUT", at+"?digest="+d, data).want(t, 201).header(t, "Docker-Content-Digest", d).header(t, "Location", "/v2/x/blobs/"+d)
		if got := r.call("GET", "/v2/x/blobs/"+d, nil).want(t, 200).body; !bytes.Equal(got, data) {
			t.Errorf("got %q, want %q", got, data)
		}
	}
	at := r.begin("x")
	r.call("PUT", at+"?digest="+digest.FromString("other").String(), []byte("abc")).want(t, 400, "DIGEST_INVALID")
	r.call("GET", at, nil).want(t, 404, "BLOB_UPLOAD_UNKNOWN")
	at = r.begin("x")
	r.call("PUT", at, []byte("abc")).want(t, 400, "DIGEST_INVALID")
	r.call("DELETE", at, nil).want(t, 204)
	noLeftovers(t, r)
}

func TestSha512(t *testing.T) {
	r := start(t)
	data := []byte("some bytes")
	d := digest.SHA512.FromBytes(data).String()
	r.call("PUT", r.begin("x")+"?digest="+d, data).want(t, 201)
	r.call("GET", "/v2/x/blobs/"+d, nil).want(t, 200)
}

func TestEnd5_Chunked(t *testing.T) {
	r := start(t)
	data := bytes.Repeat([]byte("0123456789"), 1000)
	at := r.begin("x")
	r.call("PATCH", at, data[:4000], "Content-Range: 0-3999").want(t, 202).header(t, "Range", "0-3999")
	r.call("GET", at, nil).want(t, 204).header(t, "Range", "0-3999").header(t, "Location", at)
	r.call("PATCH", at, data[5000:], "Content-Range: 5000-9999").want(t, 416).header(t, "Range", "0-3999")
	r.call("PATCH", at, data[:4000], "Content-Range: 0-3999").want(t, 416)
	r.call("PATCH", at, data[4000:5000], "Content-Range: 4000-4001").want(t, 400, "SIZE_INVALID")
	r.call("PATCH", at, data[4000:5000], "Content-Range: what").want(t, 400, "BLOB_UPLOAD_INVALID")
	r.call("PATCH", at, data[4000:6000], "Content-Range: 4000-5999").want(t, 202).header(t, "Range", "0-5999")
	r.call("PATCH", at, data[6000:7000]).want(t, 202).header(t, "Range", "0-6999")
	d := digest.FromBytes(data).String()
	r.call("PUT", at+"?digest="+d, data[7000:], "Content-Range: 7000-9999").want(t, 201)
	if got := r.call("GET", "/v2/x/blobs/"+d, nil).want(t, 200).body; !bytes.Equal(got, data) {
		t.Error("other bytes than pushed")
	}
	noLeftovers(t, r)
}

func TestEnd13_UploadSurvivesARestart(t *testing.T) {
	r := start(t)
	data := bytes.Repeat([]byte("0123456789"), 1000)
	at := r.begin("x/y")
	r.call("PATCH", at, data[:4000]).want(t, 202)
	r.close()
	r.open()
	r.call("GET", strings.Replace(at, "x/y", "x/z", 1), nil).want(t, 404, "BLOB_UPLOAD_UNKNOWN")
	r.call("GET", at, nil).want(t, 204).header(t, "Range", "0-3999")
	r.call("PATCH", at, data[4000:], "Content-Range: 4000-9999").want(t, 202)
	r.call("PUT", at+"?digest="+digest.FromBytes(data).String(), nil).want(t, 201)
	noLeftovers(t, r)
}

func TestAnUploadThatBreaksOffKeepsWhatCame(t *testing.T) {
	r := start(t)
	data := bytes.Repeat([]byte("0123456789"), 100000)
	at := r.begin("x")
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", at, len(data))
	c.Write(data[:500000])
	c.Close()
	// The status waits for a broken request to end, but may come before it has begun.
	for end := time.Now().Add(10 * time.Second); ; {
		a := r.call("GET", at, nil).want(t, 204)
		if a.Header.Get("Range") == "0-499999" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Range is %q, want 0-499999", a.Header.Get("Range"))
		}
	}
	r.call("PATCH", at, data[500000:], "Content-Range: 500000-999999").want(t, 202)
	r.call("PUT", at+"?digest="+digest.FromBytes(data).String(), nil).want(t, 201)
}

func TestEnd7_PushManifest(t *testing.T) {
	r := start(t)
	img := r.image("x", "v1", images.Options{})
	data, mt := img.Blobs[img.Manifest.Digest], "Content-Type: "+img.Manifest.MediaType
	r.call("PUT", "/v2/x/manifests/v2", data, mt).want(t, 201).header(t, "Docker-Content-Digest", img.Manifest.Digest.String())
	r.call("PUT", "/v2/x/manifests/"+img.Manifest.Digest.String(), data, mt).want(t, 201)
	r.call("PUT", "/v2/x/manifests/"+digest.FromString("x").String(), data, mt).want(t, 400, "DIGEST_INVALID")
	for name, bad := range map[string]string{
		"not JSON": "{", "schema 1": `{"schemaVersion":1,"name":"x"}`, "no media type": `{"schemaVersion":2,"mediaType":"text/plain"}`,
		"no config":     `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`,
		"both":          `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"config":{}}`,
		"other type":    `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
		"negative size": strings.Replace(string(data), fmt.Sprintf(`"size":%d`, img.Config.Size), `"size":-1`, 1),
		"wrong size":    strings.Replace(string(data), fmt.Sprintf(`"size":%d`, img.Config.Size), `"size":1`, 1),
	} {
		a := r.call("PUT", "/v2/x/manifests/bad", []byte(bad), mt)
		if a.StatusCode != 400 || !bytes.Contains(a.body, []byte("MANIFEST_INVALID")) {
			t.Errorf("%s: %s %s", name, a.Status, a.body)
		}
	}
	bad := strings.Replace(string(data), img.Config.Digest.String(), "../../etc/passwd", 1)
	r.call("PUT", "/v2/x/manifests/bad", []byte(bad), mt).want(t, 400, "DIGEST_INVALID")
	missing := strings.Replace(string(data), img.Config.Digest.String(), digest.FromString("x").String(), 1)
	r.call("PUT", "/v2/x/manifests/bad", []byte(missing), mt).want(t, 400, "MANIFEST_BLOB_UNKNOWN")
	r.call("PUT", "/v2/x/manifests/big", bytes.Repeat([]byte(" "), 4<<20+1), mt).want(t, 413, "MANIFEST_INVALID")
	r.call("GET", "/v2/x/manifests/bad", nil).want(t, 404)
	d, index, err := images.Index([]*images.Image{img})
	if err != nil {
		t.Fatal(err)
	}
	r.call("PUT", "/v2/x/manifests/index", index, "Content-Type: "+d.MediaType).want(t, 201)
	r.call("PUT", "/v2/other/manifests/index", index, "Content-Type: "+d.MediaType).want(t, 400, "MANIFEST_BLOB_UNKNOWN")
}

func TestEnd8_Tags(t *testing.T) {
	r := start(t)
	img := r.image("x", "b", images.Options{})
	for _, tag := range []string{"d", "a", "c", "B"} {
		r.call("PUT", "/v2/x/manifests/"+tag, img.Blobs[img.Manifest.Digest], "Content-Type: "+img.Manifest.MediaType).want(t, 201)
	}
	list := func(a answer) string {
		var page struct {
			Name string
			Tags []string
		}
		if err := json.Unmarshal(a.body, &page); err != nil || page.Name != "x" {
			t.Fatalf("%v: %s", err, a.body)
		}
		return strings.Join(page.Tags, " ")
	}
	for path, want := range map[string]string{
		"": "a B b c d", "?n=2": "a B", "?n=2&last=a": "B b", "?last=c": "d", "?n=0": "", "?n=9": "a B b c d", "?last=aa&n=1": "B",
	} {
		if got := list(r.call("GET", "/v2/x/tags/list"+path, nil).want(t, 200)); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
	a := r.call("GET", "/v2/x/tags/list?n=2", nil).header(t, "Link", `</v2/x/tags/list?last=B&n=2>; rel="next"`)
	r.call("GET", "/v2/x/tags/list?n=2&last=b", nil).header(t, "Link", "")
	_ = a
	r.call("GET", "/v2/x/tags/list?n=x", nil).want(t, 400, "UNSUPPORTED")
	r.call("GET", "/v2/none/tags/list", nil).want(t, 404, "NAME_UNKNOWN")
	r.image("x/tags/list", "t", images.Options{})
	r.call("GET", "/v2/x/tags/list/manifests/t", nil).want(t, 200)
	if a := r.call("GET", "/v2/_catalog?n=1", nil).want(t, 200); string(a.body) != `{"repositories":["x"]}` || a.Header.Get("Link") == "" {
		t.Errorf("catalog: %s %v", a.body, a.Header)
	}
}

func TestEnd9_DeleteManifestAndTag(t *testing.T) {
	r := start(t)
	img := r.image("x", "a", images.Options{})
	d := img.Manifest.Digest.String()
	r.call("PUT", "/v2/x/manifests/b", img.Blobs[img.Manifest.Digest], "Content-Type: "+img.Manifest.MediaType).want(t, 201)
	r.call("DELETE", "/v2/x/manifests/a", nil).want(t, 202)
	r.call("GET", "/v2/x/manifests/a", nil).want(t, 404)
	r.call("GET", "/v2/x/manifests/b", nil).want(t, 200)
	r.call("DELETE", "/v2/x/manifests/a", nil).want(t, 404, "MANIFEST_UNKNOWN")
	r.call("DELETE", "/v2/x/manifests/"+d, nil).want(t, 202)
	r.call("GET", "/v2/x/manifests/b", nil).want(t, 404)
	r.call("GET", "/v2/x/manifests/"+d, nil).want(t, 404)
	r.call("DELETE", "/v2/x/manifests/"+d, nil).want(t, 404)
}

func TestEnd10_DeleteBlob(t *testing.T) {
	r := start(t)
	img := r.image("x", "a", images.Options{})
	r.image("y", "a", images.Options{})
	l := img.Layers[0].Digest
	r.call("DELETE", "/v2/x/blobs/"+l.String(), nil).want(t, 202)
	r.call("GET", "/v2/x/blobs/"+l.String(), nil).want(t, 404)
	r.call("GET", "/v2/y/blobs/"+l.String(), nil).want(t, 200)
	r.call("DELETE", "/v2/y/blobs/"+l.String(), nil).want(t, 202)
	if exists(r.hub.blobs.Path(l)) {
		t.Error("the blob is still on the disk")
	}
	r.call("DELETE", "/v2/y/blobs/"+l.String(), nil).want(t, 404, "BLOB_UNKNOWN")
}

func TestEnd11_Mount(t *testing.T) {
	r := start(t)
	img := r.image("x", "a", images.Options{})
	l := img.Layers[0].Digest.String()
	r.call("POST", "/v2/y/blobs/uploads/?mount="+l+"&from=x", nil).want(t, 201).header(t, "Location", "/v2/y/blobs/"+l)
	r.call("GET", "/v2/y/blobs/"+l, nil).want(t, 200)
	r.call("POST", "/v2/z/blobs/uploads/?mount="+l+"&from=none", nil).want(t, 202)
	r.call("POST", "/v2/z/blobs/uploads/?mount="+l+"&from=../x", nil).want(t, 202)
	r.call("POST", "/v2/z/blobs/uploads/?mount=bad&from=x", nil).want(t, 400, "DIGEST_INVALID")
}

func TestEnd12_Referrers(t *testing.T) {
	r := start(t)
	img := r.image("x", "a", images.Options{})
	r.call("POST", "/v2/x/blobs/uploads/?digest="+digest.FromString("{}").String(), []byte("{}")).want(t, 201)
	m, _ := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "artifactType": "application/x.sbom",
		"config":      ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: digest.FromString("{}"), Size: 2},
		"layers":      []ocispec.Descriptor{},
		"subject":     img.Manifest,
		"annotations": map[string]string{"k": "v"},
	})
	d := digest.FromBytes(m).String()
	r.call("PUT", "/v2/x/manifests/"+d, m, "Content-Type: "+ocispec.MediaTypeImageManifest).want(t, 201).
		header(t, "OCI-Subject", img.Manifest.Digest.String())
	list := func(query string) ocispec.Index {
		var index ocispec.Index
		a := r.call("GET", "/v2/x/referrers/"+img.Manifest.Digest.String()+query, nil).want(t, 200).header(t, "Content-Type", ocispec.MediaTypeImageIndex)
		if err := json.Unmarshal(a.body, &index); err != nil {
			t.Fatal(err)
		}
		return index
	}
	got := list("")
	if len(got.Manifests) != 1 || got.Manifests[0].ArtifactType != "application/x.sbom" || got.Manifests[0].Annotations["k"] != "v" {
		t.Errorf("%+v", got)
	}
	if got := list("?artifactType=other"); len(got.Manifests) != 0 {
		t.Errorf("filter: %+v", got)
	}
	r.call("DELETE", "/v2/x/manifests/"+d, nil).want(t, 202)
	if got := list(""); len(got.Manifests) != 0 {
		t.Errorf("after delete: %+v", got)
	}
}

func TestManyPushAtOnce(t *testing.T) {
	r := start(t)
	img, err := images.Generate(images.Options{Layers: 3, FilesPerLayer: 10})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			if err := img.Push(r.url, fmt.Sprintf("r%d", i%4), fmt.Sprintf("t%d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for i := range 16 {
		r.call("GET", fmt.Sprintf("/v2/r%d/manifests/t%d", i%4, i), nil).want(t, 200)
	}
	noLeftovers(t, r)
}

func TestOneHubPerRoot(t *testing.T) {
	r := start(t)
	if _, err := Open(r.root, nil); err == nil || !strings.Contains(err.Error(), "another registry serves it") {
		t.Errorf("second Open: %v", err)
	}
}

// noLeftovers fails if an upload or temporary file is left.
func noLeftovers(t *testing.T, r *server) {
	t.Helper()
	for _, pattern := range []string{"uploads/*", "ingest/.tmp*", "blobs/*/.tmp*"} {
		if found, _ := filepath.Glob(filepath.Join(r.root, pattern)); len(found) > 0 {
			t.Errorf("left behind: %v", found)
		}
	}
	filepath.WalkDir(filepath.Join(r.root, "repositories"), func(path string, e os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(e.Name(), ".tmp-") {
			t.Errorf("left behind: %s", path)
		}
		return nil
	})
}

func FuzzManifest(f *testing.F) {
	img, err := images.Generate(images.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(img.Blobs[img.Manifest.Digest], img.Manifest.MediaType)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{}]}`), "")
	f.Fuzz(func(t *testing.T, data []byte, contentType string) {
		m, err := parseManifest(data, contentType)
		if err == nil && m.MediaType == "" {
			t.Error("a manifest without media type")
		}
	})
}

func FuzzContentRange(f *testing.F) {
	f.Add("0-9")
	f.Add("bytes 5-9/20")
	f.Add("9-8")
	f.Fuzz(func(t *testing.T, v string) {
		if first, last, ok := parseRange(v); ok && (first < 0 || last < first-1 || last-first+1 < 0) {
			t.Errorf("%q is %d to %d", v, first, last)
		}
	})
}

// FuzzRequest sends any request to a registry: it never answers 5xx, and never writes outside its folders.
func FuzzRequest(f *testing.F) {
	for _, s := range [][4]string{
		{"GET", "/v2/a/b/manifests/v1", "", ""}, {"PUT", "/v2/a/manifests/v1", "application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[]}`},
		{"POST", "/v2/a/blobs/uploads/?digest=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "", ""}, {"POST", "/v2/a/blobs/uploads/?mount=x&from=../b", "0-3", "abcd"},
		{"GET", "/v2/a/referrers/sha256:x?artifactType=y&last=z", "", ""}, {"GET", "/v2/_catalog?n=-1&last=%00", "", ""}, {"DELETE", "/v2/../../etc/passwd", "", ""}, {"PATCH", "/v2/a/blobs/uploads/..", "9-1", "x"},
	} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	h, err := Open(f.TempDir(), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { h.Close() })
	f.Fuzz(func(t *testing.T, method, target, header, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" {
			return
		}
		rq := &http.Request{Method: method, URL: u, Proto: "HTTP/1.1", Header: http.Header{"Content-Type": {header}, "Content-Range": {header}, "Range": {header}},
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), RemoteAddr: "127.0.0.1:1", Host: "h"}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, rq)
		if w.Code >= 500 {
			t.Errorf("%s %q: %d %s", method, target, w.Code, w.Body)
		}
		entries, err := os.ReadDir(h.root)
		if err != nil || len(entries) > 8 {
			t.Errorf("%s %q left %v in the registry's folder (%v)", method, target, entries, err)
		}
	})
}
