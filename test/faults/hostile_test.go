package faults

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"tare/internal/test/harness"
	"tare/internal/test/images"
)

// tarOf writes headers as they are; a regular file's content is its Linkname's or "content".
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		data := []byte(nil)
		if h.Typeflag == tar.TypeReg {
			data = []byte("content")
			h.Size = int64(len(data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write(data)
	}
	w.Close()
	return buf.Bytes()
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}
func hard(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}
func folder(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name + "/"} }
func device(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeBlock, Name: name, Devmajor: 259, Devminor: 1, Mode: 0o666}
}

// tricks are tars that try to leave the root they are unpacked in; OUT is a folder of the host.
func tricks(t testing.TB, out string) map[string][]byte {
	up := strings.Repeat("../", 20) + strings.TrimPrefix(out, "/")
	return map[string][]byte{
		"dotdot":                     tarOf(t, file(up+"/dotdot")),
		"dotdot inside":              tarOf(t, folder("a"), file("a/../../../../../../../../../../.."+out+"/inside")),
		"absolute":                   tarOf(t, file(out+"/absolute")),
		"symlink, absolute":          tarOf(t, link("l", out), file("l/symlink")),
		"symlink, relative":          tarOf(t, link("l", up), file("l/symlink")),
		"symlink as the file":        tarOf(t, link("f", out+"/target"), file("f")),
		"symlink under a folder":     tarOf(t, folder("d"), link("d", out), file("d/symlink")),
		"symlinks in a chain":        tarOf(t, link("a", "b"), link("b", out), file("a/chain")),
		"hard link outside":          tarOf(t, hard("passwd", out+"/secret")),
		"hard link, dotdot":          tarOf(t, hard("passwd", up+"/secret")),
		"hard link through symlink":  tarOf(t, link("l", out), hard("passwd", "l/secret"), file("passwd")),
		"device":                     tarOf(t, device("disk")),
		"device through symlink":     tarOf(t, link("l", out), device("l/disk")),
		"whiteout through symlink":   tarOf(t, link("l", out), file("l/.wh.secret")),
		"whiteout, dotdot":           tarOf(t, file(up+"/.wh.secret")),
		"whiteout of dotdot":         tarOf(t, file(".wh..")),
		"whiteout of dot":            tarOf(t, file(".wh..."), file("a/.wh...")),
		"whiteout without a name":    tarOf(t, file(".wh.")),
		"opaque through symlink":     tarOf(t, link("l", out), file("l/.wh..wh..opq")),
		"opaque, dotdot":             tarOf(t, file(up+"/.wh..wh..opq")),
		"folder over symlink":        tarOf(t, link("l", out), folder("l"), file("l/f")),
		"mode through symlink":       tarOf(t, link("l", out), tar.Header{Typeflag: tar.TypeDir, Name: "l/", Mode: 0o777}),
		"long name":                  tarOf(t, file(strings.Repeat(strings.Repeat("x", 200)+"/", 25)+"f")),
		"nul":                        tarOf(t, file("a\x01b")),
		"fifo":                       tarOf(t, tar.Header{Typeflag: tar.TypeFifo, Name: "fifo"}, file("fifo")),
		"overlay's own attributes":   tarOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "o/", PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/../../" + out}}),
		"overlay's whiteout, device": tarOf(t, tar.Header{Typeflag: tar.TypeChar, Name: "etc/passwd"}),
	}
}

// bait is a folder of the host that nothing may change.
func bait(t *testing.T) (dir string, unharmed func(what string)) {
	dir, err := os.MkdirTemp("", "tare-bait-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, func(what string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		data, _ := os.ReadFile(secret)
		st, serr := os.Stat(dir)
		if err != nil || serr != nil || len(entries) != 1 || string(data) != "secret\n" || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: the host's files changed: %v %q %v %v", what, entries, data, st.Mode(), err)
			os.Chmod(dir, 0o700)
			for _, x := range entries {
				os.RemoveAll(filepath.Join(dir, x.Name()))
			}
			os.WriteFile(secret, []byte("secret\n"), 0o600)
		}
	}
}

// TestHostileTars brings tars that try to leave their root in by every way there is: as layers of a pull, in
// archives of a load, by import, as build contexts, as what ADD unpacks, and into a container. Each is refused, or stays inside;
// a container of what came of it does not see the host's file.
func TestHostileTars(t *testing.T) {
	e := start(t)
	e.Tools()
	r := e.Registry()
	out, unharmed := bait(t)
	e.Docker("create", "--name", "held", "tools")
	clean := footprint(e)
	for name, data := range tricks(t, out) {
		img, err := images.Assemble(images.Options{Cmd: []string{"/bin/true"}}, data)
		if err != nil {
			t.Fatal(err)
		}
		if err := img.Push("http://"+r, "hostile", "latest"); err != nil {
			t.Fatal(err)
		}
		ways := []struct {
			way    string
			answer answer
			image  string
		}{
			{"pull", must(e, "POST", "/images/create?fromImage="+url.QueryEscape(r+"/hostile")+"&tag=latest", "", nil), r + "/hostile"},
			{"load, docker-archive", must(e, "POST", "/images/load", "application/x-tar", bytes.NewReader(dockerArchive(t, img, data))), "loaded"},
			{"import", must(e, "POST", "/images/create?fromSrc=-&repo=imported", "", bytes.NewReader(data)), "imported"},
			{"context", must(e, "POST", "/build?t=context", "application/x-tar", bytes.NewReader(join(t, data, map[string]string{"Dockerfile": "FROM tools\nCOPY . /context/\n"}))), "context"},
			{"ADD", must(e, "POST", "/build?t=added", "application/x-tar", contextTar(map[string]string{"Dockerfile": "FROM tools\nADD hostile.tar /\n", "hostile.tar": string(data)})), "added"},
			{"cp", must(e, "PUT", "/containers/held/archive?path=/tmp", "application/x-tar", bytes.NewReader(data)), ""},
		}
		unharmed(name)
		for _, w := range ways {
			what := name + " by " + w.way
			failed := w.answer.status >= 400 || strings.Contains(w.answer.body, `"errorDetail"`)
			if w.answer.status >= 500 && !strings.Contains(w.answer.body, "operation not permitted") { // an overlay's whiteout, by cp

				t.Errorf("%s: %+v", what, w.answer)
			}
			if w.image == "" {
				continue
			}
			if !failed { // it stayed inside: whatever it holds is not the host's
				save := must(e, "GET", "/images/"+w.image+"/get", "", nil)
				if save.status != 200 || strings.Contains(save.body, "secret\n") {
					t.Errorf("%s: the image cannot be saved, or has the host's file: %d", what, save.status)
				}
			}
			if a := must(e, "DELETE", "/images/"+w.image+"?force=1", "", nil); failed != (a.status == 404) {
				t.Errorf("%s failed: %v; the removal of its image: %+v\n%+v", what, failed, a, w.answer)
			}
		}
		unharmed(name + ", removed")
	}
	must(e, "DELETE", "/containers/held?force=1", "", nil)
	e.Docker("create", "--name", "held", "tools")
	must(e, "POST", "/build/prune?all=1", "", nil)
	must(e, "POST", "/images/prune", "", nil)
	nothingNew(e, "hostile tars", withoutContainers(clean, footprint(e)))
	alive(e, "tools")
}

// withoutContainers is before with the containers of now: their ids are others.
func withoutContainers(before, now []string) []string {
	var list []string
	for _, l := range before {
		if !strings.HasPrefix(l, "file containers/") {
			list = append(list, l)
		}
	}
	for _, l := range now {
		if strings.HasPrefix(l, "file containers/") {
			list = append(list, l)
		}
	}
	return list
}

// dockerArchive is a docker save of one layer, called "loaded".
func dockerArchive(t testing.TB, img *images.Image, layer []byte) []byte {
	t.Helper()
	config := img.Blobs[img.Config.Digest]
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{"loaded:latest"}, "Layers": []string{"one/layer.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	return contextTar(map[string]string{"config.json": string(config), "one/layer.tar": string(layer), "manifest.json": string(manifest)}).Bytes()
}

// join adds files to a tar, before its own.
func join(t testing.TB, data []byte, files map[string]string) []byte {
	t.Helper()
	first := contextTar(files).Bytes()
	return append(first[:len(first)-1024:len(first)-1024], data...)
}

// TestHostileArchives loads archives whose own structure lies.
func TestHostileArchives(t *testing.T) {
	e := start(t)
	e.Tools()
	out, unharmed := bait(t)
	layer := tarOf(t, file("f"))
	img, err := images.Assemble(images.Options{}, layer)
	if err != nil {
		t.Fatal(err)
	}
	config := string(img.Blobs[img.Config.Digest])
	manifest := func(config string, layers string) string {
		return `[{"Config":"` + config + `","RepoTags":["loaded:latest"],"Layers":[` + layers + `]}]`
	}
	up := strings.Repeat("../", 20) + out[1:] + "/secret"
	clean := footprint(e)
	for name, data := range map[string][]byte{
		"empty":                        {},
		"no manifest":                  contextTar(map[string]string{"f": "x"}).Bytes(),
		"a manifest that is none":      contextTar(map[string]string{"manifest.json": "[{"}).Bytes(),
		"a manifest of another type":   contextTar(map[string]string{"manifest.json": `{"a":[1]}`}).Bytes(),
		"an empty manifest":            contextTar(map[string]string{"manifest.json": `[]`}).Bytes(),
		"a config of the host":         contextTar(map[string]string{"manifest.json": manifest(up, `"l"`), "l": string(layer)}).Bytes(),
		"a layer of the host":          contextTar(map[string]string{"manifest.json": manifest("c", `"`+up+`"`), "c": config}).Bytes(),
		"a layer of the host, linked":  append(contextTar(map[string]string{"manifest.json": manifest("c", `"l"`), "c": config}).Bytes()[:3072], tarOf(t, link("l", out+"/secret"))...),
		"a layer of the host, linked²": append(contextTar(map[string]string{"manifest.json": manifest("c", `"l"`), "c": config}).Bytes()[:3072], tarOf(t, hard("l", out+"/secret"))...),
		"links in a circle":            append(contextTar(map[string]string{"manifest.json": manifest("c", `"l"`), "c": config}).Bytes()[:3072], tarOf(t, link("l", "m"), link("m", "l"))...),
		"another layer than said":      contextTar(map[string]string{"manifest.json": manifest("c", `"l"`), "c": config, "l": string(tarOf(t, file("g")))}).Bytes(),
		"more layers than said":        contextTar(map[string]string{"manifest.json": manifest("c", `"l","l"`), "c": config, "l": string(layer)}).Bytes(),
		"no layers":                    contextTar(map[string]string{"manifest.json": manifest("c", ``), "c": config}).Bytes(),
		"a config that is none":        contextTar(map[string]string{"manifest.json": manifest("c", `"l"`), "c": "{{", "l": string(layer)}).Bytes(),
		"an invalid name":              contextTar(map[string]string{"manifest.json": strings.Replace(manifest("c", `"l"`), "loaded:latest", "../../UPPER", 1), "c": config, "l": string(layer)}).Bytes(),
		"a layout of nothing":          contextTar(map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + strings.Repeat("0", 64) + `","size":3}]}`}).Bytes(),
		"a digest that is a path":      contextTar(map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../../../../` + out + `/secret","size":3}]}`}).Bytes(),
		"a blob with another content":  contextTar(map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "blobs/sha256/" + strings.Repeat("0", 64): "x", "index.json": `{}`}).Bytes(),
		"cut":                          dockerArchive(t, img, layer)[:2500],
		"cut in a gzip":                {0x1f, 0x8b, 8, 0, 0, 0, 0, 0},
	} {
		a := must(e, "POST", "/images/load", "application/x-tar", bytes.NewReader(data))
		if a.status < 400 && !strings.Contains(a.body, `"errorDetail"`) || a.status >= 500 || strings.Contains(a.body, "secret\\n") {
			t.Errorf("%s: %+v", name, a)
		}
		unharmed(name)
		nothingNew(e, name, clean)
	}
	alive(e, "tools")
}

// broken is a registry behind a proxy that spoils answers.
type broken struct {
	host string

	mu    sync.Mutex
	spoil func(w http.ResponseWriter, r *http.Request, next http.Handler) // nil: as it is
}

func breakable(t *testing.T, e *harness.Engine) *broken {
	b := &broken{}
	next := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: e.Registry()})
	next.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) { panic(http.ErrAbortHandler) }
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		spoil := b.spoil
		b.mu.Unlock()
		if spoil == nil {
			next.ServeHTTP(w, r)
			return
		}
		spoil(w, r, next)
	}))
	t.Cleanup(srv.Close)
	b.host = strings.TrimPrefix(srv.URL, "http://")
	return b
}

func (b *broken) set(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spoil = f
}

// TestRegistriesThatFail pulls from registries that cut connections, send other bytes, say no, or say nothing that makes sense.
func TestRegistriesThatFail(t *testing.T) {
	e := start(t)
	e.Tools()
	b := breakable(t, e)
	img, err := images.Generate(images.Options{Layers: 3, FilesPerLayer: 20, FileSize: 100 << 10, Ratio: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Push("http://"+e.Registry(), "big", "latest"); err != nil {
		t.Fatal(err)
	}
	layer := img.Layers[1].Digest
	of := func(d digest.Digest, f func(w http.ResponseWriter, data []byte)) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == "GET" && strings.HasSuffix(r.URL.Path, d.String()) && r.Header.Get("Range") == "" {
				f(w, bytes.Clone(img.Blobs[d]))
				return
			}
			next.ServeHTTP(w, r)
		}
	}
	flip := func(w http.ResponseWriter, data []byte) { data[len(data)/2] ^= 1; w.Write(data) }
	says := func(status int, body string) func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
				w.WriteHeader(status)
				io.WriteString(w, body)
				return
			}
			next.ServeHTTP(w, r)
		}
	}
	clean := footprint(e)
	for _, tt := range []struct {
		name  string
		spoil func(w http.ResponseWriter, r *http.Request, next http.Handler)
		text  string
	}{
		{"a layer with one other bit", of(layer, flip), "failed verification|damaged|its content has digest|checksum|corrupt"},
		{"a config with one other bit", of(img.Config.Digest, flip), "its content has digest|damaged|failed verification"},
		{"a layer that is another", of(layer, func(w http.ResponseWriter, data []byte) { w.Write(img.Blobs[img.Layers[0].Digest]) }), "size|bytes|damaged|digest"},
		{"no manifest", says(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`), "manifest unknown"},
		{"denied", says(403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`), "denied"},
		{"who are you", says(401, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`), "unauthorized|authentication required|no basic auth credentials|access"},
		{"a manifest that is none", says(200, `<html>`), "manifest|invalid"},
		{"a manifest of nothing", says(200, `{}`), "manifest|mediaType|media type|config"},
		{"a manifest of a thousand layers", says(200, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:../../x","size":-1},"layers":[]}`), "digest|invalid"},
		{"a teapot", says(418, "short and stout"), "418|short and stout|teapot"},
	} {
		b.set(tt.spoil)
		for _, got := range []harness.Result{e.Try(nil, "pull", b.host+"/big"), e.Tare(nil, "pull", b.host+"/big")} {
			if got.Code != 1 || !oneOf(got.Stderr, tt.text) {
				t.Errorf("%s: %+v, want %s", tt.name, got, tt.text)
			}
		}
		nothingNew(e, tt.name, clean)
		alive(e, "")
	}
	// A connection that breaks is taken up again where it broke.
	cuts := 0
	b.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if b.mu.Lock(); r.Method == "GET" && strings.Contains(r.URL.Path, "/blobs/") && cuts < 3 {
			cuts++
			b.mu.Unlock()
			next.ServeHTTP(&cut{ResponseWriter: w, left: 100 << 10}, r)
			return
		}
		b.mu.Unlock()
		next.ServeHTTP(w, r)
	})
	e.Docker("pull", "-q", b.host+"/big")
	if b.mu.Lock(); cuts != 3 {
		t.Errorf("%d connections were cut", cuts)
	}
	b.mu.Unlock()
	e.Docker("rmi", b.host+"/big")
	nothingNew(e, "a pull with cuts", clean)
	// One that breaks again and again ends the pull; the next one, with a better line, succeeds.
	b.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, layer.String()) {
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
	if got := e.Try(nil, "pull", b.host+"/big"); got.Code != 1 || !oneOf(got.Stderr, "EOF|connection reset|unexpected") {
		t.Errorf("a line that always breaks: %+v", got)
	}
	b.set(nil)
	e.Docker("pull", "-q", b.host+"/big")
	e.Docker("rmi", b.host+"/big")
	nothingNew(e, "a pull that broke, and one that did not", clean)
	alive(e, "tools")
}

// cut is an answer that breaks.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		panic(http.ErrAbortHandler)
	}
	n, err := c.ResponseWriter.Write(p)
	http.NewResponseController(c.ResponseWriter).Flush()
	return n, err
}

// TestDamagedStore changes a byte of what the store has. What needs the byte says so; a pull mends it.
func TestDamagedStore(t *testing.T) {
	e := start(t)
	e.Tools()
	r := e.Registry()
	img, err := images.Generate(images.Options{Layers: 2, FileSize: 100 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Push("http://"+r, "big", "latest"); err != nil {
		t.Fatal(err)
	}
	clean := footprint(e)
	for _, d := range []digest.Digest{img.Layers[0].Digest, img.Config.Digest, img.Manifest.Digest} {
		for _, how := range []string{"changed", "removed", "emptied"} {
			e.Docker("pull", "-q", r+"/big")
			path := filepath.Join(e.DataRoot, "images", "blobs", "sha256", d.Encoded())
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			switch how {
			case "changed":
				data[len(data)/2] ^= 1
				err = os.WriteFile(path, data, 0o644)
			case "removed":
				err = os.Remove(path)
			case "emptied":
				err = os.Truncate(path, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			what := d.Encoded()[:12] + " " + how
			e.Kill() // the next engine must start, whatever it finds
			relaunch(e)
			alive(e, "tools")
			push := e.Try(nil, "push", r+"/big")
			if d == img.Layers[0].Digest && how == "changed" && push.Code == 0 {
				// The registry has the layer and asks for none; to another place it would have to send it.
				e.Docker("tag", r+"/big", r+"/elsewhere")
				push = e.Try(nil, "push", r+"/elsewhere")
				e.Docker("rmi", r+"/elsewhere")
			}
			if strings.Contains(push.Stderr, "panic") {
				t.Errorf("%s: push: %+v", what, push)
			}
			e.Try(nil, "rmi", "-f", r+"/big")
			if got := e.Try(nil, "pull", r+"/big"); got.Code != 0 {
				t.Errorf("%s: after its removal it cannot be pulled: %+v", what, got)
			}
			e.Docker("rmi", r+"/big")
			e.Kill()
			relaunch(e)
			nothingNew(e, what, clean)
		}
	}
	alive(e, "tools")
}
