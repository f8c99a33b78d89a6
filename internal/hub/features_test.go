package hub

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/hub/access"
	"tare/internal/hub/audit"
	"tare/internal/hub/config"
	"tare/internal/hub/notify"
	"tare/internal/hub/upstream"
	"tare/internal/test/faulty"
	"tare/internal/test/images"
)

// startWith is start with a configuration; garbage is only looked for when a test says so.
func startWith(t *testing.T, yaml string) *server {
	t.Helper()
	r := &server{t: t, root: t.TempDir()}
	if !strings.Contains(yaml, "gc:") {
		yaml += "\ngc: {interval: -1s}"
	}
	c, err := config.Parse("test", []byte("root: "+r.root+"\n"+yaml))
	if err != nil {
		t.Fatal(err)
	}
	if r.hub, err = New(c, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	for _, k := range c.Caches {
		u, err := upstream.Open(k)
		if err != nil {
			t.Fatal(err)
		}
		r.hub.Source(k.Prefix, u)
	}
	r.srv = httptest.NewServer(r.hub)
	r.url = r.srv.URL
	t.Cleanup(func() { r.close() })
	return r
}

func basic(name, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

// token asks for one and returns it as a header.
func (r *server) token(query string, headers ...string) string {
	r.t.Helper()
	var answer struct{ Token string }
	a := r.call("GET", "/auth/token?service=tare-registry"+query, nil, headers...).want(r.t, 200)
	if err := json.Unmarshal(a.body, &answer); err != nil || answer.Token == "" {
		r.t.Fatalf("%v: %s", err, a.body)
	}
	return "Authorization: Bearer " + answer.Token
}

const someRights = `
auth: {scheme: token}
rights:
  - {repositories: ["public/**"], anonymous: true, actions: [pull]}
  - {repositories: ["**"], users: [root], actions: [admin]}
  - {repositories: ["team/**"], groups: [devs], actions: [pull, push]}
  - {repositories: ["drop/*"], users: [ann], actions: [push]}
`

// people makes ann (a dev) and root.
func (r *server) people() {
	r.t.Helper()
	accounts := access.OpenAccounts(r.root)
	for name, groups := range map[string][]string{"ann": {"devs"}, "root": {}} {
		if err := accounts.SetUser(name, name+"-pw", groups); err != nil {
			r.t.Fatal(err)
		}
	}
}

// seed puts an image into the store of a registry that would not let this test in.
func (r *server) seed(name, tag string, o images.Options) *images.Image {
	r.t.Helper()
	was := r.hub.access
	r.hub.access = nil
	defer func() { r.hub.access = was }()
	return r.image(name, tag, o)
}

func TestTokenFlow(t *testing.T) {
	r := startWith(t, someRights)
	r.people()
	img := r.seed("public/a", "v1", images.Options{})
	r.seed("team/b", "v1", images.Options{})
	service := `service="tare-registry"`
	// code-11: whoever has no name is told where to get a token, and for what.
	r.call("GET", "/v2/", nil).want(t, 401, "UNAUTHORIZED").header(t, "WWW-Authenticate", `Bearer realm="`+r.url+`/auth/token",`+service)
	r.call("GET", "/v2/team/b/manifests/v1", nil).want(t, 401, "UNAUTHORIZED").
		header(t, "WWW-Authenticate", `Bearer realm="`+r.url+`/auth/token",`+service+`,scope="repository:team/b:pull"`)
	r.call("POST", "/v2/team/b/blobs/uploads/", nil).want(t, 401, "UNAUTHORIZED").
		header(t, "WWW-Authenticate", `Bearer realm="`+r.url+`/auth/token",`+service+`,scope="repository:team/b:pull,push"`)
	r.call("GET", "/v2/nothing/here/tags/list", nil).want(t, 401)
	// Anonymous: the public, with a token or none, and nothing else.
	nobody := r.token("&scope=repository:public/a:pull,push&scope=repository:team/b:pull")
	r.call("GET", "/v2/public/a/manifests/v1", nil).want(t, 200)
	r.call("GET", "/v2/", nil, nobody).want(t, 200)
	r.call("GET", "/v2/public/a/blobs/"+img.Config.Digest.String(), nil, nobody).want(t, 200)
	r.call("POST", "/v2/public/a/blobs/uploads/", nil, nobody).want(t, 401)
	r.call("GET", "/v2/team/b/tags/list", nil, nobody).want(t, 401)
	// ann
	r.call("GET", "/auth/token?service=tare-registry", nil, basic("ann", "wrong")).want(t, 401, "UNAUTHORIZED")
	r.call("GET", "/auth/token?service=other", nil, basic("ann", "ann-pw")).want(t, 400)
	pull := r.token("&scope=repository:team/b:pull", basic("ann", "ann-pw"))
	r.call("GET", "/v2/team/b/manifests/v1", nil, pull).want(t, 200)
	a := r.call("POST", "/v2/team/b/blobs/uploads/", nil, pull).want(t, 401, "UNAUTHORIZED") // she may, the token may not
	if !strings.Contains(a.Header.Get("WWW-Authenticate"), `error="insufficient_scope"`) {
		t.Error(a.Header)
	}
	all := r.token("&scope=repository:team/b:pull,push,delete&scope=repository:drop/x:pull,push", basic("ann", "ann-pw"))
	r.call("POST", "/v2/team/b/blobs/uploads/", nil, all).want(t, 202)
	r.call("DELETE", "/v2/team/b/manifests/v1", nil, all).want(t, 403, "DENIED")
	r.call("POST", "/v2/drop/x/blobs/uploads/", nil, all).want(t, 202)
	r.call("GET", "/v2/drop/x/tags/list", nil, all).want(t, 403, "DENIED")
	r.call("POST", "/v2/else/blobs/uploads/", nil, all).want(t, 403, "DENIED")
	r.call("GET", "/v2/team/b/tags/list", nil, "Authorization: Bearer nonsense").want(t, 401)
	// Basic credentials are as good as a token.
	r.call("GET", "/v2/team/b/manifests/v1", nil, basic("ann", "ann-pw")).want(t, 200)
	r.call("GET", "/v2/team/b/manifests/v1", nil, basic("ann", "no")).want(t, 401)
	// The catalog has what one may pull.
	for who, want := range map[string]string{basic("ann", "ann-pw"): `["public/a","team/b"]`, nobody: `["public/a"]`} {
		if a := r.call("GET", "/v2/_catalog", nil, who).want(t, 200); !strings.Contains(string(a.body), want) {
			t.Errorf("catalog: %s, want %s", a.body, want)
		}
	}
	// OAuth2, with an identity token as docker login keeps it.
	form := func(v url.Values, status int) map[string]any {
		t.Helper()
		v.Set("service", "tare-registry")
		v.Set("client_id", "test")
		a := r.call("POST", "/auth/token", []byte(v.Encode()), "Content-Type: application/x-www-form-urlencoded").want(t, status)
		var m map[string]any
		json.Unmarshal(a.body, &m)
		return m
	}
	form(url.Values{"grant_type": {"password"}, "username": {"ann"}, "password": {"x"}}, 401)
	form(url.Values{"grant_type": {"magic"}}, 400)
	m := form(url.Values{"grant_type": {"password"}, "username": {"ann"}, "password": {"ann-pw"}, "access_type": {"offline"}}, 200)
	refresh, _ := m["refresh_token"].(string)
	m = form(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "scope": {"repository:team/b:pull"}}, 200)
	r.call("GET", "/v2/team/b/manifests/v1", nil, fmt.Sprint("Authorization: Bearer ", m["access_token"])).want(t, 200)
	r.call("GET", "/v2/team/b/manifests/v1", nil, "Authorization: Bearer "+refresh).want(t, 401)
	// What is taken away is gone at once.
	if err := access.OpenAccounts(r.root).Remove("ann"); err != nil {
		t.Fatal(err)
	}
	r.call("GET", "/v2/team/b/manifests/v1", nil, all).want(t, 401)
	form(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}, 401)
}

func TestGuessingPasswordsIsSlowedDown(t *testing.T) {
	r := startWith(t, someRights)
	for i := range 60 { // twenty, and more where the machine is so slow that some are forgotten
		a := r.call("GET", "/auth/token", nil, basic("robot$x", "guess"))
		if a.StatusCode == 401 && i < 59 {
			continue
		}
		a.want(t, 429, "TOOMANYREQUESTS")
		if i < 20 || a.Header.Get("Retry-After") == "" {
			t.Errorf("after %d: %v", i, a.Header)
		}
		return
	}
}

func TestMountNeedsTheRightToPull(t *testing.T) {
	r := startWith(t, someRights)
	r.people()
	secret := r.seed("secret/x", "v1", images.Options{}).Layers[0].Digest.String()
	open := r.seed("public/x", "v1", images.Options{Seed: 1}).Layers[0].Digest.String()
	ann := basic("ann", "ann-pw")
	r.call("POST", "/v2/team/y/blobs/uploads/?mount="+secret+"&from=secret/x", nil, ann).want(t, 202)
	r.call("POST", "/v2/team/y/blobs/uploads/?mount="+secret, nil, ann).want(t, 202)
	r.call("POST", "/v2/team/y/blobs/uploads/?mount="+open+"&from=public/x", nil, ann).want(t, 201)
	r.call("POST", "/v2/team/z/blobs/uploads/?mount="+open, nil, ann).want(t, 201)
	r.call("GET", "/v2/team/y/blobs/"+secret, nil, ann).want(t, 404)
}

func TestImmutableTags(t *testing.T) {
	r := startWith(t, someRights+`
immutable:
  - {repositories: ["team/**"], tags: ["v*"], except: ["*-rc*"]}
`)
	r.people()
	one := r.seed("team/b", "v1", images.Options{})
	two := r.seed("team/b", "dev", images.Options{Seed: 1})
	put := func(tag string, img *images.Image) answer {
		return r.call("PUT", "/v2/team/b/manifests/"+tag, img.Blobs[img.Manifest.Digest], "Content-Type: "+img.Manifest.MediaType, basic("root", "root-pw"))
	}
	put("v1", one).want(t, 201) // the same again
	put("v1", two).want(t, 409, "DENIED")
	put("v2-rc1", one).want(t, 201)
	put("v2-rc1", two).want(t, 201)
	put("dev", one).want(t, 201)
	accounts := access.OpenAccounts(r.root)
	_, secret, err := accounts.AddRobot("ci", []access.Grant{{Repositories: []string{"team/*"}, Actions: []string{"pull", "push", "delete"}}}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	robot := basic("robot$ci", secret)
	r.call("DELETE", "/v2/team/b/manifests/v1", nil, robot).want(t, 409, "DENIED")
	r.call("DELETE", "/v2/team/b/manifests/"+one.Manifest.Digest.String(), nil, robot).want(t, 409, "DENIED")
	r.call("DELETE", "/v2/team/b/manifests/v2-rc1", nil, robot).want(t, 202)
	r.call("DELETE", "/v2/team/b/manifests/v1", nil, basic("root", "root-pw")).want(t, 202)
	// However many push at once, one wins and nobody else is told so.
	var group sync.WaitGroup
	var won atomic.Int32
	for i := range 8 {
		img := []*images.Image{one, two}[i%2]
		group.Go(func() {
			if put(fmt.Sprintf("v9.%d", 0), img).StatusCode == 201 {
				won.Add(1)
			}
		})
	}
	group.Wait()
	if n := won.Load(); n != 4 {
		t.Errorf("%d of 8 pushes of two images won", n)
	}
}

func TestLimits(t *testing.T) {
	r := startWith(t, "limits: {manifest: 5KiB, blob: 10KB, uploadsPerClient: 1}")
	big := bytes.Repeat([]byte("x"), 10001)
	d := "?digest=" + digest.FromBytes(big).String()
	r.call("POST", "/v2/x/blobs/uploads/"+d, big).want(t, 413, "SIZE_INVALID")
	at := r.begin("x")
	r.call("PATCH", at, big[:6000]).want(t, 202)
	rq, _ := http.NewRequest("PATCH", r.url+at, struct{ io.Reader }{bytes.NewReader(big[:6000])}) // of unknown length
	rs, err := http.DefaultClient.Do(rq)
	if err != nil || rs.StatusCode != 413 {
		t.Errorf("%v %v", rs, err)
	}
	rs.Body.Close()
	r.call("GET", at, nil).want(t, 204).header(t, "Range", "0-5999") // as before
	r.call("PUT", at+"?digest="+digest.FromBytes(big[:10000]).String(), big[6000:10000]).want(t, 201)
	r.call("PUT", "/v2/x/manifests/v1", bytes.Repeat([]byte(" "), 5<<10+1)).want(t, 413, "MANIFEST_INVALID")
	noLeftovers(t, r)

	// One body at a time: the second waits, and gets in.
	slow, feed := io.Pipe()
	first := r.begin("x")
	done := make(chan int, 2)
	go func() {
		rq, _ := http.NewRequest("PATCH", r.url+first, slow)
		rs, err := http.DefaultClient.Do(rq)
		if err != nil {
			t.Error(err)
			done <- 0
			return
		}
		rs.Body.Close()
		done <- rs.StatusCode
	}()
	feed.Write([]byte("a"))
	for end := time.Now().Add(10 * time.Second); r.hub.gate.Inside() == 0; {
		if time.Now().After(end) {
			t.Fatal("the first never began")
		}
	}
	second := r.begin("x")
	go func() { done <- r.call("PATCH", second, []byte("b")).StatusCode }()
	feed.Write([]byte("a"))
	feed.Close()
	if a, b := <-done, <-done; a != 202 || b != 202 {
		t.Error(a, b)
	}

	r = startWith(t, "limits: {rate: 0.01, burst: 3}")
	for range 3 {
		r.call("GET", "/v2/", nil).want(t, 200)
	}
	if a := r.call("GET", "/v2/", nil).want(t, 429, "TOOMANYREQUESTS"); a.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r = startWith(t, "limits: {free: 1000TB}")
	r.call("POST", "/v2/x/blobs/uploads/", nil).want(t, 507, "UNKNOWN")
	r.call("PUT", "/v2/x/manifests/v1", []byte("{}")).want(t, 507, "UNKNOWN")
	r.call("GET", "/healthz", nil).want(t, 503)
	r = startWith(t, "")
	r.call("GET", "/healthz", nil).want(t, 200)
}

// blobsOnDisk counts blobs.
func blobsOnDisk(t *testing.T, r *server) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(r.root, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func (r *server) collect() {
	r.t.Helper()
	if err := r.hub.Collect(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

func TestGarbage(t *testing.T) {
	r := startWith(t, "gc: {interval: -1s, grace: 1h}")
	img := r.image("a/x", "v1", images.Options{Layers: 3})
	shared := r.image("b/y", "v1", images.Options{Layers: 3})
	r.call("POST", "/v2/a/x/blobs/uploads/?digest="+digest.FromString("lone").String(), []byte("lone")).want(t, 201)
	all := blobsOnDisk(t, r)
	r.collect()
	if n := blobsOnDisk(t, r); n != all {
		t.Fatalf("%d of %d blobs left, though everything is in use or young", n, all)
	}
	r.call("DELETE", "/v2/a/x/manifests/"+img.Manifest.Digest.String(), nil).want(t, 202)
	forgetPins(r)
	r.collect()
	for _, l := range append(img.Layers, img.Config) {
		r.call("GET", "/v2/a/x/blobs/"+l.Digest.String(), nil).want(t, 404)
		r.call("GET", "/v2/b/y/blobs/"+l.Digest.String(), nil).want(t, 200)
	}
	r.call("DELETE", "/v2/b/y/manifests/"+shared.Manifest.Digest.String(), nil).want(t, 202)
	// Somebody is about to push a manifest with one of its layers.
	kept := shared.Layers[1].Digest
	r.call("HEAD", "/v2/b/y/blobs/"+kept.String(), nil).want(t, 200)
	r.collect()
	r.call("GET", "/v2/b/y/blobs/"+kept.String(), nil).want(t, 200)
	forgetPins(r)
	r.collect()
	if n := blobsOnDisk(t, r); n != 0 {
		t.Errorf("%d blobs are left of nothing", n)
	}
	if n := r.hub.meters.freed.Value(); n == 0 {
		t.Error("no bytes counted")
	}
	// After a restart, nobody knows what was asked for; but what a deletion sets free is known.
	again := r.image("a/x", "v1", images.Options{Layers: 3})
	r.call("POST", "/v2/a/x/blobs/uploads/?digest="+digest.FromString("lone").String(), []byte("lone")).want(t, 201)
	r.close()
	r.open()
	r.call("DELETE", "/v2/a/x/manifests/"+again.Manifest.Digest.String(), nil).want(t, 202)
	r.collect()
	if n := blobsOnDisk(t, r); n != 1 {
		t.Errorf("%d blobs, want the one that waits for a manifest", n)
	}
}

// forgetPins lets the time pass in which blobs wait for a manifest.
func forgetPins(r *server) {
	r.hub.pins.mu.Lock()
	defer r.hub.pins.mu.Unlock()
	clear(r.hub.pins.by)
	r.hub.pins.start = time.Now().Add(-2 * r.hub.pins.grace)
}

// TestGarbageGoesUnderPushes is distribution#1515: no downtime, no failed push, and the space comes back.
func TestGarbageGoesUnderPushes(t *testing.T) {
	r := startWith(t, "gc: {interval: 3ms, grace: 2s}")
	var group sync.WaitGroup
	began := time.Now()
	var rounds atomic.Int32
	more := func() bool {
		t := time.Since(began)
		return t < 2*time.Second || rounds.Load() < 40 && t < 30*time.Second // however slow the machine is
	}
	for w := range 4 {
		group.Go(func() {
			for i := 0; more(); i++ {
				img, err := images.Generate(images.Options{Layers: 3, Seed: uint64(i % 5)})
				if err != nil {
					t.Error(err)
					return
				}
				tag := fmt.Sprintf("t%d-%d", w, i)
				for _, l := range append(img.Layers, img.Config) { // as clients do: ask, then push what is missing
					rs, err := http.Head(r.url + "/v2/x/blobs/" + l.Digest.String())
					if err != nil {
						t.Error(err)
						return
					}
					if rs.StatusCode == 200 {
						continue
					}
					if err := images.PushBlob(r.url, "x", img.Blobs[l.Digest]); err != nil {
						t.Error(err)
						return
					}
				}
				if err := images.PushManifest(r.url, "x", tag, img.Manifest.MediaType, img.Blobs[img.Manifest.Digest]); err != nil {
					t.Error(err)
					return
				}
				rs, err := http.Get(r.url + "/v2/x/manifests/" + tag)
				if err != nil || rs.StatusCode != 200 && rs.StatusCode != 404 { // another may have deleted it
					t.Errorf("%v %v", rs, err)
					return
				}
				rs.Body.Close()
				a := r.call("DELETE", "/v2/x/manifests/"+img.Manifest.Digest.String(), nil)
				if a.StatusCode != 202 && a.StatusCode != 404 {
					t.Errorf("%s: %s", a.Status, a.body)
				}
				rounds.Add(1)
			}
		})
	}
	group.Wait()
	for end := time.Now().Add(20 * time.Second); blobsOnDisk(t, r) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d blobs are left after %d pushes and deletions", blobsOnDisk(t, r), rounds.Load())
		}
	}
	if rounds.Load() < 10 {
		t.Errorf("%d rounds are too few to show anything", rounds.Load())
	}
}

func TestRetention(t *testing.T) {
	r := startWith(t, `
immutable: [{repositories: ["ci/*"], tags: [keep]}]
retention:
  - {repositories: ["ci/*"], tags: ["*"], keep: 2}
  - {repositories: ["ci/*"], tags: [none], untagged: 1ns}
`)
	var last *images.Image
	for i, tag := range []string{"keep", "one", "two", "three"} {
		last = r.image("ci/x", tag, images.Options{Seed: uint64(i)})
		at := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(r.hub.tagLink("ci/x", tag), at, at); err != nil {
			t.Fatal(err)
		}
	}
	r.image("other/x", "one", images.Options{})
	forgetPins(r)
	r.collect()
	var list struct{ Tags []string }
	json.Unmarshal(r.call("GET", "/v2/ci/x/tags/list", nil).want(t, 200).body, &list)
	if want := []string{"keep", "three", "two"}; !slices.Equal(list.Tags, want) {
		t.Errorf("tags %v, want %v", list.Tags, want)
	}
	r.call("GET", "/v2/ci/x/blobs/"+last.Config.Digest.String(), nil).want(t, 200)
	r.call("GET", "/v2/other/x/manifests/one", nil).want(t, 200)
	if found, _ := filepath.Glob(filepath.Join(r.root, "repositories/ci/x/_manifests/sha256/*")); len(found) != 3 {
		t.Errorf("%d manifests are left, want 3", len(found))
	}
}

// TestRecords looks at webhooks, audit log and metrics of the same few events.
func TestRecords(t *testing.T) {
	got := make(chan notify.Event, 100)
	listener := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, rq *http.Request) {
		var e struct{ Events []notify.Event }
		if err := json.NewDecoder(rq.Body).Decode(&e); err != nil || len(e.Events) != 1 {
			t.Error(err)
			return
		}
		got <- e.Events[0]
	}))
	defer listener.Close()
	logFile := filepath.Join(t.TempDir(), "audit.log")
	r := startWith(t, someRights+`
audit: {file: `+logFile+`}
webhooks: [{name: a, url: "`+listener.URL+`", events: [push, delete, mount, pull], repositories: ["team/**"]}]
`)
	r.people()
	root := basic("root", "root-pw")
	blob := []byte("{}")
	d := digest.FromBytes(blob)
	r.call("POST", "/v2/team/a/blobs/uploads/?digest="+d.String(), blob, root).want(t, 201)
	m, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": ocispec.DescriptorEmptyJSON, "layers": []string{}})
	if err != nil {
		t.Fatal(err)
	}
	md := digest.FromBytes(m).String()
	r.call("PUT", "/v2/team/a/manifests/v1", m, root, "Content-Type: "+ocispec.MediaTypeImageManifest).want(t, 201)
	r.call("POST", "/v2/team/b/blobs/uploads/?mount="+d.String()+"&from=team/a", nil, root).want(t, 201)
	r.call("GET", "/v2/team/a/manifests/v1", nil, root).want(t, 200)
	r.call("DELETE", "/v2/team/a/manifests/v1", nil, basic("ann", "ann-pw")).want(t, 403)
	r.call("DELETE", "/v2/team/a/manifests/v1", nil, root).want(t, 202)
	r.call("GET", "/v2/", nil, basic("ann", "wrong")).want(t, 401)
	for _, want := range []string{
		"push team/a  " + d.String() + " root 2 POST", "push team/a v1 " + md + fmt.Sprintf(" root %d PUT", len(m)), "mount team/b  " + d.String() + " root 0 POST",
		"pull team/a v1 " + md + fmt.Sprintf(" root %d GET", len(m)), "delete team/a v1 " + md + " root 0 DELETE",
	} {
		e := <-got
		if line := fmt.Sprint(e.Action, " ", e.Target.Repository, " ", e.Target.Tag, " ", e.Target.Digest, " ", e.Actor.Name, " ", e.Target.Size, " ", e.Request.Method); line != want {
			t.Errorf("event %q, want %q", line, want)
		}
	}
	data, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, l := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		var e audit.Entry
		if err := json.Unmarshal([]byte(l), &e); err != nil || e.Time.IsZero() || e.Remote != "127.0.0.1" {
			t.Errorf("%v: %s", err, l)
		}
		lines = append(lines, fmt.Sprint(e.Actor, " ", e.Action, " ", e.Object, " ", e.Repository, " ", e.Tag, " ", e.Status))
	}
	want := []string{"root push blob team/a  201", "root push manifest team/a v1 201", "root mount blob team/b  201", "root pull manifest team/a v1 200",
		"ann delete manifest team/a  403", "root delete tag team/a v1 202", "ann login    401"}
	if !slices.Equal(lines, want) {
		t.Errorf("audit:\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	// SIGHUP, after the file was moved away
	if err := os.Rename(logFile, logFile+".1"); err != nil {
		t.Fatal(err)
	}
	if err := r.hub.Reopen(); err != nil {
		t.Fatal(err)
	}
	r.call("GET", "/v2/", nil, basic("ann", "wrong")).want(t, 401)
	if data, err := os.ReadFile(logFile); err != nil || strings.Count(string(data), "\n") != 1 {
		t.Errorf("%v: %s", err, data)
	}
	w := httptest.NewRecorder()
	r.hub.Admin().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`tare_registry_requests_total{kind="manifest",method="PUT",code="201"} 1`, `tare_registry_events_total{action="push",object="blob"} 1`,
		"tare_registry_repositories 2", "tare_registry_webhooks_waiting", `tare_registry_request_seconds_count{kind="manifest",method="GET"} 1`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in\n%s", want, w.Body)
		}
	}
	r.call("GET", "/metrics", nil).want(t, 404) // not for clients
}

// moody is an upstream that can be told to fail.
type moody struct {
	http.Handler
	status atomic.Int32
	asked  atomic.Int32
	blobs  atomic.Int32
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.asked.Add(1)
	if strings.Contains(r.URL.Path, "/blobs/") {
		m.blobs.Add(1)
	}
	if s := m.status.Load(); s != 0 {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(int(s))
		return
	}
	m.Handler.ServeHTTP(w, r)
}

func TestCache(t *testing.T) {
	origin := start(t)
	m := &moody{Handler: origin.hub}
	srv := httptest.NewServer(m)
	t.Cleanup(srv.Close)
	r := startWith(t, `caches: [{prefix: up, upstream: "`+srv.URL+`", insecure: true, fresh: 1ns, timeout: 1s}]`)
	img := origin.image("lib/app", "v1", images.Options{Layers: 2, FilesPerLayer: 50})
	index, data, err := images.Index([]*images.Image{img})
	if err != nil {
		t.Fatal(err)
	}
	if err := images.PushManifest(origin.url, "lib/app", "multi", index.MediaType, data); err != nil {
		t.Fatal(err)
	}
	get := func(path string, status int) answer {
		t.Helper()
		return r.call("GET", "/v2/up/lib/app/"+path, nil).want(t, status)
	}
	layer := img.Layers[1]
	r.call("GET", "/v2/up/lib/app/blobs/"+layer.Digest.String(), nil).want(t, 404) // nothing says that it is theirs
	get("manifests/v1", 200).header(t, "Docker-Content-Digest", img.Manifest.Digest.String())
	get("manifests/none", 404)
	r.call("HEAD", "/v2/up/lib/app/manifests/multi", nil).want(t, 200).header(t, "Content-Type", index.MediaType)
	r.call("HEAD", "/v2/up/lib/app/blobs/"+layer.Digest.String(), nil).want(t, 200).header(t, "Content-Length", fmt.Sprint(layer.Size))
	// Many ask for a blob at once; upstream is asked once.
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			var headers []string
			want, status := img.Blobs[layer.Digest], 200
			if i == 7 {
				headers, want, status = []string{"Range: bytes=5-"}, want[5:], 206
			}
			if a := r.call("GET", "/v2/up/lib/app/blobs/"+layer.Digest.String(), nil, headers...).want(t, status); !bytes.Equal(a.body, want) {
				t.Errorf("%d bytes, want %d", len(a.body), len(want))
			}
		})
	}
	group.Wait()
	if n := m.blobs.Load(); n != 1 {
		t.Errorf("upstream was asked for the blob %d times", n)
	}
	get("blobs/"+img.Config.Digest.String(), 200)
	get("blobs/"+img.Layers[0].Digest.String(), 200)
	// A tag that moves upstream moves here.
	moved := origin.image("lib/app", "v1", images.Options{Seed: 3})
	get("manifests/v1", 200).header(t, "Docker-Content-Digest", moved.Manifest.Digest.String())
	// Upstream answers 429, then is gone: what is here is served, with a warning.
	for _, s := range []int32{429, 503, 401} {
		m.status.Store(s)
		began := time.Now()
		a := get("manifests/v1", 200).header(t, "Docker-Content-Digest", moved.Manifest.Digest.String())
		if !strings.HasPrefix(a.Header.Get("Warning"), `299 - "`) || time.Since(began) > 10*time.Second {
			t.Errorf("%d: Warning %q after %s", s, a.Header.Get("Warning"), time.Since(began))
		}
		r.hub.caches[0].mu.Lock()
		alone := time.Until(r.hub.caches[0].down) > downFor/2
		r.hub.caches[0].mu.Unlock()
		if a := get("manifests/v1", 200); !alone || a.Header.Get("Warning") == "" {
			t.Errorf("%d: upstream is not left alone", s)
		}
		r.hub.caches[0].mu.Lock()
		r.hub.caches[0].down = time.Time{}
		r.hub.caches[0].mu.Unlock()
	}
	srv.Close()
	get("manifests/v1", 200)
	get("manifests/"+img.Manifest.Digest.String(), 200)
	get("blobs/"+layer.Digest.String(), 200)
	r.close() // also after a restart, without upstream
	c := *r.hub.config
	if r.hub, err = New(&c, nil); err != nil {
		t.Fatal(err)
	}
	r.srv = httptest.NewServer(r.hub)
	r.url = r.srv.URL
	get("manifests/v1", 200)
	get("blobs/"+layer.Digest.String(), 200)
	// It is a cache, not a place to push to.
	r.call("POST", "/v2/up/lib/app/blobs/uploads/", nil).want(t, 405, "UNSUPPORTED")
	r.call("PUT", "/v2/up/lib/app/manifests/x", data, "Content-Type: "+index.MediaType).want(t, 405, "UNSUPPORTED")
	noLeftovers(t, r)
}

func TestCacheNeverKeepsWrongBytes(t *testing.T) {
	origin := start(t)
	img := origin.image("app", "v1", images.Options{FilesPerLayer: 200})
	layer := img.Layers[0]
	lie := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, rq *http.Request) {
		if !strings.Contains(rq.URL.Path, layer.Digest.String()) {
			origin.hub.ServeHTTP(w, rq)
			return
		}
		bad := bytes.Clone(img.Blobs[layer.Digest])
		bad[len(bad)-1] ^= 1
		w.Header().Set("Content-Length", fmt.Sprint(len(bad)))
		w.Write(bad)
	}))
	t.Cleanup(lie.Close)
	r := startWith(t, `caches: [{upstream: "`+lie.URL+`", insecure: true}]`)
	r.call("GET", "/v2/app/manifests/v1", nil).want(t, 200)
	rs, err := http.Get(r.url + "/v2/app/blobs/" + layer.Digest.String())
	if err == nil {
		_, err = io.ReadAll(rs.Body)
		rs.Body.Close()
	}
	if err == nil && rs.StatusCode == 200 {
		t.Error("a client was given wrong bytes as the whole")
	}
	for end := time.Now().Add(5 * time.Second); ; {
		r.hub.caches[0].mu.Lock()
		n := len(r.hub.caches[0].fills)
		r.hub.caches[0].mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("still being fetched")
		}
	}
	if exists(r.hub.blobs.Path(layer.Digest)) {
		t.Error("wrong bytes were kept")
	}
	noLeftovers(t, r)
}

// TestCacheBehindABadNetwork: whatever upstream or the network does, a client gets the right bytes or an error, and the cache keeps nothing wrong.
func TestCacheBehindABadNetwork(t *testing.T) {
	origin := start(t)
	img := origin.image("app", "v1", images.Options{FilesPerLayer: 100})
	layer := img.Layers[0]
	half := layer.Size / 2
	for _, f := range []faulty.Fault{
		{Kind: faulty.Cut, Path: "/blobs/", Times: 1, After: half}, {Kind: faulty.Cut, Path: "/blobs/", Times: 3, After: 100}, {Kind: faulty.Truncate, Path: "/blobs/", Times: 1, After: half},
		{Kind: faulty.Corrupt, Path: "/blobs/", Times: 1, After: half}, {Kind: faulty.Longer, Path: "/blobs/", Times: 1}, {Kind: faulty.Shorter, Path: "/blobs/", Times: 1},
		{Kind: faulty.Delay, Path: "/blobs/", Times: 1, Wait: 100 * time.Millisecond}, {Kind: faulty.Status, Path: "/blobs/", Times: 1, Code: 503}, {Kind: faulty.Status, Path: "/blobs/", Times: 1, Code: 429},
		{Kind: faulty.Corrupt, Path: "/manifests/", Times: 1, After: 30}, {Kind: faulty.Truncate, Path: "/manifests/", Times: 1, After: 30}, {Kind: faulty.Endless, Path: "/manifests/", Times: 1},
		{Kind: faulty.Endless, Path: "/blobs/", Times: 1},
	} {
		t.Run(fmt.Sprintf("%s %s", f.Kind, strings.Trim(f.Path, "/")), func(t *testing.T) {
			p, address := faulty.Serve(t, origin.url)
			r := startWith(t, `caches: [{upstream: "`+address+`", insecure: true}]`)
			p.Set(f)
			fetch := func(path string, want digest.Digest) bool {
				t.Helper()
				rs, err := http.Get(r.url + path)
				if err != nil {
					return false
				}
				defer rs.Body.Close()
				data, err := io.ReadAll(rs.Body)
				if err != nil || rs.StatusCode != 200 {
					return false
				}
				if digest.FromBytes(data) != want {
					t.Fatalf("%s: wrong bytes, and no error", path)
				}
				return true
			}
			whole := false
			for range 4 { // a client that tries again gets there
				if fetch("/v2/app/manifests/v1", img.Manifest.Digest) && fetch("/v2/app/blobs/"+layer.Digest.String(), layer.Digest) {
					whole = true
					break
				}
			}
			if !whole {
				t.Error("not even the fourth try was right")
			}
			if p.Struck() == 0 {
				t.Error("the fault never struck")
			}
			if f.Kind == faulty.Cut && f.Times == 1 {
				if down, _ := p.Moved(); down > layer.Size*155/100+8192 {
					t.Errorf("%d bytes moved for a blob of %d", down, layer.Size)
				}
			}
			noLeftovers(t, r)
		})
	}
}

// TestPushesOverABadNetwork: a cut upload keeps what came; a corrupt one is refused.
func TestPushesOverABadNetwork(t *testing.T) {
	r := start(t)
	p, address := faulty.Serve(t, r.url)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	d := digest.FromBytes(data)
	at := r.begin("x")
	p.Set(faulty.Fault{Kind: faulty.CutUpload, Method: "PATCH", Times: 1, After: int64(len(data) / 2)})
	send := func(method, at string, body []byte) *http.Response {
		rq, err := http.NewRequest(method, address+at, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		rs, err := http.DefaultClient.Do(rq)
		if err != nil {
			return nil
		}
		rs.Body.Close()
		return rs
	}
	if rs := send("PATCH", at, data); rs != nil && rs.StatusCode < 400 {
		t.Fatalf("a cut upload was taken for whole: %s", rs.Status)
	}
	var have int
	for end := time.Now().Add(10 * time.Second); have < len(data)/2-chunk; {
		if _, err := fmt.Sscanf(r.call("GET", at, nil).want(t, 204).Header.Get("Range"), "0-%d", &have); err != nil {
			t.Fatal(err)
		}
		have++
		if time.Now().After(end) {
			t.Fatalf("only %d bytes were kept", have)
		}
	}
	if rs := send("PUT", at+"?digest="+d.String(), data[have:]); rs == nil || rs.StatusCode != 201 {
		t.Fatalf("the rest: %v", rs)
	}
	if got := r.call("GET", "/v2/x/blobs/"+d.String(), nil).want(t, 200).body; !bytes.Equal(got, data) {
		t.Error("other bytes than pushed")
	}
	bad := bytes.Clone(data)
	bad[5] ^= 1
	r.call("PUT", r.begin("x")+"?digest="+digest.FromString("other").String(), bad).want(t, 400, "DIGEST_INVALID")
	if n := blobsOnDisk(t, r); n != 1 {
		t.Errorf("%d blobs", n)
	}
	noLeftovers(t, r)
}

// TestHostileClients: what nobody should send costs little and breaks nothing.
func TestHostileClients(t *testing.T) {
	r := startWith(t, "limits: {blob: 1MiB}")
	endless := func(method, path, contentType string) int {
		t.Helper()
		rq, err := http.NewRequest(method, r.url+path, io.NopCloser(neverending('x')))
		if err != nil {
			t.Fatal(err)
		}
		rq.Header.Set("Content-Type", contentType)
		rs, err := http.DefaultClient.Do(rq)
		if err != nil {
			return 0 // cut, which is as good
		}
		rs.Body.Close()
		return rs.StatusCode
	}
	if s := endless("PUT", "/v2/x/manifests/v1", ocispec.MediaTypeImageManifest); s != 413 && s != 0 {
		t.Error("endless manifest:", s)
	}
	if s := endless("PATCH", r.begin("x"), "application/octet-stream"); s != 413 && s != 0 {
		t.Error("endless blob:", s)
	}
	deep := strings.Repeat(`{"a":`, 200_000)
	r.call("PUT", "/v2/x/manifests/v1", []byte(deep), "Content-Type: "+ocispec.MediaTypeImageManifest).want(t, 400, "MANIFEST_INVALID")
	self := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[{"mediaType":"` + ocispec.MediaTypeImageIndex + `","size":1,"digest":"` + digest.FromString("itself").String() + `"}]}`
	r.call("PUT", "/v2/x/manifests/v1", []byte(self), "Content-Type: "+ocispec.MediaTypeImageIndex).want(t, 400, "MANIFEST_BLOB_UNKNOWN")
	r.call("POST", "/v2/x/blobs/uploads/?digest="+digest.FromString("{}").String(), []byte("{}")).want(t, 201)
	for what, size := range map[string]string{"larger": "3", "smaller": "1", "negative": "-1", "huge": "9223372036854775807"} {
		m := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[],"config":{"mediaType":"a/b","size":` + size + `,"digest":"` + digest.FromString("{}").String() + `"}}`
		if a := r.call("PUT", "/v2/x/manifests/v1", []byte(m), "Content-Type: "+ocispec.MediaTypeImageManifest); a.StatusCode != 400 {
			t.Errorf("a config %s than it is: %s", what, a.Status)
		}
	}
	many := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"a/b","size":2,"digest":"` + digest.FromString("{}").String() + `"},"layers":[` +
		strings.TrimSuffix(strings.Repeat(`{"mediaType":"a/b","size":2,"digest":"`+digest.FromString("{}").String()+`"},`, 30_000), ",") + `]}`
	r.call("PUT", "/v2/x/manifests/many", []byte(many), "Content-Type: "+ocispec.MediaTypeImageManifest).want(t, 201)
	// A client that says much and sends nothing holds an upload, not the registry.
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", r.begin("x"))
	r.call("GET", "/v2/x/tags/list", nil).want(t, 200)
}

// neverending gives one byte forever.
type neverending byte

func (n neverending) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(n)
	}
	return len(p), nil
}

func TestABodyThatStandsStillHasADeadline(t *testing.T) {
	var set []time.Time
	p := &patientReader{Reader: strings.NewReader("abc"), limit: func(at time.Time) { set = append(set, at) }}
	io.ReadAll(p)
	p.end()
	if len(set) != 2 || time.Until(set[0]) < patience/2 || !set[1].IsZero() {
		t.Errorf("deadlines %v", set)
	}
}

// TestAPowerCut: a blob whose mark is of another boot is verified at the start; a torn one is gone, a whole one stays.
func TestAPowerCut(t *testing.T) {
	r := start(t)
	img := r.image("x", "v1", images.Options{Layers: 2})
	torn, whole := img.Layers[0].Digest, img.Layers[1].Digest
	r.close()
	for _, d := range []digest.Digest{torn, whole} {
		if err := os.WriteFile(filepath.Join(r.root, "unsettled", flat(d)), []byte("another boot"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(r.hub.blobs.Path(torn), 10); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.call("GET", "/v2/x/blobs/"+torn.String(), nil).want(t, 404, "BLOB_UNKNOWN")
	r.call("GET", "/v2/x/blobs/"+whole.String(), nil).want(t, 200)
	// The same push again mends it.
	if err := img.Push(r.url, "x", "v1"); err != nil {
		t.Fatal(err)
	}
	r.call("GET", "/v2/x/blobs/"+torn.String(), nil).want(t, 200)
	if left, _ := filepath.Glob(filepath.Join(r.root, "unsettled/*")); len(left) != 0 {
		t.Errorf("marks are left, though the manifest was acknowledged: %v", left)
	}
}
