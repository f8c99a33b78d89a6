package distribution

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	must   = "MUST"
	should = "SHOULD"
	old    = "1.0 and Docker's clients"

	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

var unknown = digest.FromString("nobody has this").String()

var uuid = regexp.MustCompile(`[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}`)

// clauses, by workflow, in the order of the document.
var clauses = slices.Concat(pull, push, discovery, management, errorCodes, before)

var pull = []clause{
	{"pull", "end-1", must, "GET /v2/ answers 200", func(p *probe) { p.want(p.do("GET", "/v2/", nil), 200) }},
	{"pull", "end-3", must, "GET of a manifest by tag answers 200 with the manifest", func(p *probe) {
		m := p.pushed("v1")
		if a := p.want(p.do("GET", p.path("manifests/v1"), nil, "Accept: "+m.desc.MediaType), 200); !bytes.Equal(a.body, m.data) {
			p.fail("other bytes")
		}
	}},
	{"pull", "end-3", must, "GET of a manifest by digest answers 200 with the manifest", func(p *probe) {
		m := p.pushed("v1")
		if a := p.want(p.do("GET", p.path("manifests", m.desc.Digest.String()), nil, "Accept: "+m.desc.MediaType), 200); !bytes.Equal(a.body, m.data) {
			p.fail("other bytes")
		}
	}},
	{"pull", "end-3", should, "Content-Type of a manifest is what it was pushed with, without parameters", func(p *probe) {
		m := p.pushed("v1")
		p.header(p.do("GET", p.path("manifests/v1"), nil, "Accept: "+m.desc.MediaType), "Content-Type", m.desc.MediaType)
	}},
	{"pull", "end-3", should, "a manifest comes with its digest in Docker-Content-Digest", func(p *probe) {
		m := p.pushed("v1")
		p.header(p.do("GET", p.path("manifests/v1"), nil, "Accept: "+m.desc.MediaType), "Docker-Content-Digest", m.desc.Digest.String())
	}},
	{"pull", "end-3", must, "a tag that is not there answers 404", func(p *probe) {
		p.pushed("v1")
		p.want(p.do("GET", p.path("manifests/v2"), nil), 404)
	}},
	{"pull", "end-3", must, "a digest that is not there answers 404", func(p *probe) {
		p.pushed("v1")
		p.want(p.do("GET", p.path("manifests", unknown), nil), 404)
	}},
	{"pull", "end-3", must, "a reference that is neither tag nor digest answers 404", func(p *probe) {
		p.pushed("v1")
		p.want(p.do("GET", p.path("manifests/.no-tag"), nil), 404)
	}},
	{"pull", "end-3", must, "a repository that is not there answers 404", func(p *probe) { p.want(p.do("GET", p.path("manifests/v1"), nil), 404) }},
	{"pull", "Pulling manifests", must, "a tag may have 128 characters", func(p *probe) {
		tag := "_" + strings.Repeat("a.B-", 31) + "123"
		m := p.pushed(tag)
		p.header(p.want(p.do("GET", p.path("manifests", tag), nil, "Accept: "+m.desc.MediaType), 200), "Docker-Content-Digest", m.desc.Digest.String())
	}},
	{"pull", "Pulling manifests", must, "a tag of 129 characters is refused", func(p *probe) {
		m := p.image(nil)
		p.want(p.do("PUT", p.path("manifests", strings.Repeat("a", 129)), m.data, "Content-Type: "+m.desc.MediaType), 400, 404)
	}},
	{"pull", "Pulling manifests", must, "every form of repository name that the expression allows is accepted", func(p *probe) {
		root := p.repo
		for _, name := range []string{"a", "0", "a.b", "a_b", "a__b", "a-b", "a---b", "a/b/c/d/e", "x.y_z-0/1__2"} {
			p.repo = root + "/" + name
			p.pushed("v1")
			p.want(p.do("GET", p.path("manifests/v1"), nil, "Accept: "+ocispec.MediaTypeImageManifest), 200)
		}
	}},
	{"pull", "Pulling manifests", must, "a name that the expression does not allow is refused", func(p *probe) {
		root := p.repo
		for _, name := range []string{"A", "a_", "-a", "a..b", "a___b", ".a"} {
			p.repo = root + "/" + name
			p.want(p.do("POST", p.path("blobs/uploads/"), nil), 400, 404)
		}
	}},
	{"pull", "end-2", must, "GET of a blob answers 200 with the blob", func(p *probe) {
		d := p.blob("content")
		if a := p.want(p.do("GET", p.path("blobs", d.Digest.String()), nil), 200); string(a.body) != "content" {
			p.fail("got %q", a.body)
		}
	}},
	{"pull", "end-2", must, "a blob comes with its digest in Docker-Content-Digest, if that header is there (SHOULD)", func(p *probe) {
		d := p.blob("content")
		p.header(p.do("GET", p.path("blobs", d.Digest.String()), nil), "Docker-Content-Digest", d.Digest.String())
	}},
	{"pull", "end-2", must, "a blob that is not there answers 404", func(p *probe) {
		p.blob("content")
		p.want(p.do("GET", p.path("blobs", unknown), nil), 404)
	}},
	{"pull", "end-2", must, "a blob of another repository is not found", func(p *probe) {
		d := p.blob("content of one repository alone")
		p.repo += "/other"
		p.blob("x")
		p.want(p.do("GET", p.path("blobs", d.Digest.String()), nil), 404)
	}},
	{"pull", "end-2", should, "Range: the first bytes", func(p *probe) { p.ranged("bytes=0-3", 206, "0123", "bytes 0-3/10") }},
	{"pull", "end-2", should, "Range: bytes within", func(p *probe) { p.ranged("bytes=4-6", 206, "456", "bytes 4-6/10") }},
	{"pull", "end-2", should, "Range: from an offset on", func(p *probe) { p.ranged("bytes=7-", 206, "789", "bytes 7-9/10") }},
	{"pull", "end-2", should, "Range: the last bytes", func(p *probe) { p.ranged("bytes=-2", 206, "89", "bytes 8-9/10") }},
	{"pull", "end-2", should, "Range: beyond the end answers 416", func(p *probe) { p.ranged("bytes=10-12", 416, "", "bytes */10") }},
	{"pull", "end-2", should, "Range: an end beyond the end is cut", func(p *probe) { p.ranged("bytes=8-99", 206, "89", "bytes 8-9/10") }},
	{"pull", "end-2", should, "HEAD tells that ranges are possible (Accept-Ranges)", func(p *probe) {
		d := p.blob("0123456789")
		p.header(p.do("HEAD", p.path("blobs", d.Digest.String()), nil), "Accept-Ranges", "bytes")
	}},
	{"pull", "end-2", must, "HEAD of a blob answers 200", func(p *probe) {
		d := p.blob("content")
		if a := p.want(p.do("HEAD", p.path("blobs", d.Digest.String()), nil), 200); len(a.body) != 0 {
			p.fail("HEAD with a body")
		}
	}},
	{"pull", "end-2", should, "HEAD of a blob tells digest and length", func(p *probe) {
		d := p.blob("content")
		a := p.do("HEAD", p.path("blobs", d.Digest.String()), nil)
		p.header(a, "Docker-Content-Digest", d.Digest.String())
		p.header(a, "Content-Length", "7")
	}},
	{"pull", "end-2", must, "HEAD of a blob that is not there answers 404", func(p *probe) {
		p.blob("content")
		p.want(p.do("HEAD", p.path("blobs", unknown), nil), 404)
	}},
	{"pull", "end-3", must, "HEAD of a manifest by tag and by digest answers 200", func(p *probe) {
		m := p.pushed("v1")
		for _, ref := range []string{"v1", m.desc.Digest.String()} {
			if a := p.want(p.do("HEAD", p.path("manifests", ref), nil, "Accept: "+m.desc.MediaType), 200); len(a.body) != 0 {
				p.fail("HEAD with a body")
			}
		}
	}},
	{"pull", "end-3", should, "HEAD of a manifest tells digest, length and type", func(p *probe) {
		m := p.pushed("v1")
		a := p.do("HEAD", p.path("manifests/v1"), nil, "Accept: "+m.desc.MediaType)
		p.header(a, "Docker-Content-Digest", m.desc.Digest.String())
		p.header(a, "Content-Length", fmt.Sprint(m.desc.Size))
		p.header(a, "Content-Type", m.desc.MediaType)
	}},
	{"pull", "end-3", must, "HEAD of a manifest that is not there answers 404", func(p *probe) {
		p.pushed("v1")
		p.want(p.do("HEAD", p.path("manifests/v2"), nil), 404)
		p.want(p.do("HEAD", p.path("manifests", unknown), nil), 404)
	}},
}

func (p *probe) ranged(value string, status int, body, contentRange string) {
	d := p.blob("0123456789")
	a := p.want(p.do("GET", p.path("blobs", d.Digest.String()), nil, "Range: "+value), status)
	if status == 206 && string(a.body) != body {
		p.fail("got %q, want %q", a.body, body)
	}
	p.header(a, "Content-Range", contentRange)
}

// pullable fails if an address does not give content.
func (p *probe) pullable(address, content string) {
	if a := p.want(p.do("GET", address, nil, "Accept: "+ocispec.MediaTypeImageManifest), 200); string(a.body) != content {
		p.fail("%s gives %.100q", address, a.body)
	}
}

var push = []clause{
	{"push", "Push", must, "a manifest whose subject is not there is accepted", func(p *probe) {
		p.put("v1", p.image(func(m map[string]any) {
			m["subject"] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(unknown), Size: 5}
		}))
	}},
	{"push", "Push", must, "a manifest that is refused for an unknown blob is refused with MANIFEST_BLOB_UNKNOWN", func(p *probe) {
		m := p.image(func(m map[string]any) {
			m["layers"] = []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.Digest(unknown), Size: 5}}
		})
		if a := p.do("PUT", p.path("manifests/v1"), m.data, "Content-Type: "+m.desc.MediaType); a.StatusCode != 201 {
			p.errorBody(p.want(a, 400, 404), "MANIFEST_BLOB_UNKNOWN")
		}
	}},
	{"push", "Push", must, "an index that is refused for an unknown manifest is refused with MANIFEST_BLOB_UNKNOWN", func(p *probe) {
		p.blob("x")
		m := encode(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex,
			"manifests": []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(unknown), Size: 5}}})
		if a := p.do("PUT", p.path("manifests/v1"), m.data, "Content-Type: "+m.desc.MediaType); a.StatusCode != 201 {
			p.errorBody(p.want(a, 400, 404), "MANIFEST_BLOB_UNKNOWN")
		}
	}},
	{"push", "end-4a", must, "POST answers 202 with a Location that has a UUID", func(p *probe) {
		if l := p.begin(); !uuid.MatchString(l) {
			p.fail("Location %s", l)
		}
	}},
	{"push", "end-6", must, "POST then PUT answers 201 with the Location of a pullable blob", func(p *probe) {
		d := digest.FromString("content").String()
		p.pullable(p.location(p.want(p.do("PUT", with(p.begin(), "digest", d), []byte("content"), "Content-Type: application/octet-stream"), 201)), "content")
	}},
	{"push", "end-6", must, "an empty blob can be pushed", func(p *probe) {
		d := p.blob("")
		if a := p.want(p.do("GET", p.path("blobs", d.Digest.String()), nil), 200); len(a.body) != 0 {
			p.fail("%d bytes", len(a.body))
		}
	}},
	{"push", "end-6", must, "PUT with the digest of something else answers 400, and nothing is stored", func(p *probe) {
		p.want(p.do("PUT", with(p.begin(), "digest", unknown), []byte("content")), 400)
		p.want(p.do("GET", p.path("blobs", unknown), nil), 404)
		p.want(p.do("GET", p.path("blobs", digest.FromString("content").String()), nil), 404)
	}},
	{"push", "end-6", must, "PUT without a digest answers 400", func(p *probe) { p.want(p.do("PUT", p.begin(), []byte("content")), 400) }},
	{"push", "end-4b", must, "a single POST answers 201 with a pullable Location, or 202 with one that takes the PUT", func(p *probe) {
		d := digest.FromString("content").String()
		a := p.want(p.do("POST", p.path("blobs/uploads/")+"?digest="+d, []byte("content"), "Content-Type: application/octet-stream"), 201, 202)
		if a.StatusCode == 202 {
			a = p.want(p.do("PUT", with(p.location(a), "digest", d), []byte("content")), 201)
		}
		p.pullable(p.location(a), "content")
	}},
	{"push", "end-4b", must, "a single POST with the digest of something else stores nothing", func(p *probe) {
		p.want(p.do("POST", p.path("blobs/uploads/")+"?digest="+unknown, []byte("content")), 400, 202)
		p.want(p.do("GET", p.path("blobs", unknown), nil), 404)
	}},
	{"push", "end-5", must, "each chunk answers 202 with Location and Range, and the whole is what was sent", func(p *probe) {
		at := p.begin()
		for i, c := range []string{"0123", "456", "789"} {
			first := []int{0, 4, 7}[i]
			a := p.want(p.do("PATCH", at, []byte(c), "Content-Type: application/octet-stream", fmt.Sprintf("Content-Range: %d-%d", first, first+len(c)-1)), 202)
			p.header(a, "Range", fmt.Sprintf("0-%d", first+len(c)-1))
			at = p.location(a)
		}
		a := p.want(p.do("PUT", with(at, "digest", digest.FromString("0123456789").String()), nil, "Content-Length: 0"), 201)
		p.pullable(p.location(a), "0123456789")
	}},
	{"push", "end-5", must, "the last chunk may come with the closing PUT", func(p *probe) {
		at := p.location(p.want(p.do("PATCH", p.begin(), []byte("01234"), "Content-Range: 0-4", "Content-Type: application/octet-stream"), 202))
		a := p.want(p.do("PUT", with(at, "digest", digest.FromString("0123456789").String()), []byte("56789"), "Content-Range: 5-9", "Content-Type: application/octet-stream"), 201)
		p.pullable(p.location(a), "0123456789")
	}},
	{"push", "end-5", must, "a first chunk that does not begin with 0 answers 416", func(p *probe) {
		p.want(p.do("PATCH", p.begin(), []byte("456"), "Content-Range: 4-6", "Content-Type: application/octet-stream"), 416)
	}},
	{"push", "end-5", must, "a chunk that leaves a gap answers 416", func(p *probe) {
		at := p.location(p.want(p.do("PATCH", p.begin(), []byte("0123"), "Content-Range: 0-3", "Content-Type: application/octet-stream"), 202))
		p.want(p.do("PATCH", at, []byte("67"), "Content-Range: 6-7", "Content-Type: application/octet-stream"), 416)
	}},
	{"push", "end-5", must, "a chunk that comes again answers 416, and does no harm", func(p *probe) {
		at := p.location(p.want(p.do("PATCH", p.begin(), []byte("0123"), "Content-Range: 0-3", "Content-Type: application/octet-stream"), 202))
		p.want(p.do("PATCH", at, []byte("0123"), "Content-Range: 0-3", "Content-Type: application/octet-stream"), 416)
		a := p.want(p.do("GET", at, nil), 204)
		at = p.location(a)
		p.want(p.do("PUT", with(at, "digest", digest.FromString("01234").String()), []byte("4"), "Content-Range: 4-4", "Content-Type: application/octet-stream"), 201)
	}},
	{"push", "end-6", must, "a closing PUT whose chunk is out of order answers 416", func(p *probe) {
		at := p.location(p.want(p.do("PATCH", p.begin(), []byte("0123"), "Content-Range: 0-3", "Content-Type: application/octet-stream"), 202))
		p.want(p.do("PUT", with(at, "digest", digest.FromString("0123456789").String()), []byte("789"), "Content-Range: 7-9", "Content-Type: application/octet-stream"), 416)
	}},
	{"push", "end-13", must, "GET of an upload answers 204 with Location and Range", func(p *probe) {
		at := p.location(p.want(p.do("PATCH", p.begin(), []byte("0123"), "Content-Range: 0-3", "Content-Type: application/octet-stream"), 202))
		a := p.want(p.do("GET", at, nil), 204)
		p.header(a, "Range", "0-3")
		p.location(a)
	}},
	{"push", "end-13", must, "GET of an upload that is not there answers 404", func(p *probe) {
		p.blob("x")
		p.want(p.do("GET", p.path("blobs/uploads/00000000-0000-4000-8000-000000000000"), nil), 404)
	}},
	{"push", "end-5", must, "PATCH of an upload that is not there answers 404", func(p *probe) {
		p.blob("x")
		p.want(p.do("PATCH", p.path("blobs/uploads/00000000-0000-4000-8000-000000000000"), []byte("x"), "Content-Range: 0-0"), 404)
	}},
	{"push", "end-6", must, "PUT of an upload that is not there answers 404", func(p *probe) {
		p.blob("x")
		p.want(p.do("PUT", p.path("blobs/uploads/00000000-0000-4000-8000-000000000000")+"?digest="+unknown, []byte("x")), 404)
	}},
	{"push", "end-5", must, "a blob is not there before its upload is closed", func(p *probe) {
		p.blob("x")
		p.want(p.do("PATCH", p.begin(), []byte("not closed"), "Content-Range: 0-9", "Content-Type: application/octet-stream"), 202)
		p.want(p.do("HEAD", p.path("blobs", digest.FromString("not closed").String()), nil), 404)
	}},
	{"push", "end-11", must, "a mount answers 201 with a pullable Location", func(p *probe) {
		d, from := p.blob("to be mounted"), p.repo
		p.repo += "/to"
		a := p.want(p.do("POST", p.path("blobs/uploads/")+"?mount="+d.Digest.String()+"&from="+from, nil), 201)
		p.pullable(p.location(a), "to be mounted")
	}},
	{"push", "end-11", should, "a mount of what is not there begins an upload (202)", func(p *probe) {
		from := p.repo
		p.blob("x")
		p.repo += "/to"
		a := p.want(p.do("POST", p.path("blobs/uploads/")+"?mount="+digest.FromString("later").String()+"&from="+from, nil), 202)
		p.want(p.do("PUT", with(p.location(a), "digest", digest.FromString("later").String()), []byte("later")), 201)
	}},
	{"push", "end-11", should, "a mount from a repository that is not there begins an upload (202)", func(p *probe) {
		a := p.want(p.do("POST", p.path("blobs/uploads/")+"?mount="+unknown+"&from=conformance/nowhere", nil), 202)
		p.location(a)
	}},
	{"push", "end-11", should, "a mount without from answers 201, or begins an upload (202)", func(p *probe) {
		d := p.blob("to be found and mounted")
		p.repo += "/to"
		a := p.want(p.do("POST", p.path("blobs/uploads/")+"?mount="+d.Digest.String(), nil), 201, 202)
		if l := p.location(a); a.StatusCode == 201 {
			p.pullable(l, "to be found and mounted")
		}
	}},
	{"push", "end-7", must, "PUT of a manifest answers 201 with a pullable Location", func(p *probe) {
		m := p.image(nil)
		p.pullable(p.location(p.put("v1", m)), string(m.data))
	}},
	{"push", "end-7", must, "PUT of a manifest by digest answers 201, and it can be pulled", func(p *probe) {
		m := p.image(nil)
		p.pullable(p.location(p.put(m.desc.Digest.String(), m)), string(m.data))
	}},
	{"push", "end-7", must, "Docker-Content-Digest of a manifest is what the client says", func(p *probe) {
		m := p.image(nil)
		p.header(p.put(m.desc.Digest.String(), m), "Docker-Content-Digest", m.desc.Digest.String())
	}},
	{"push", "end-7", must, "a manifest is stored byte by byte", func(p *probe) {
		m := p.image(nil)
		odd := []byte(strings.Replace(string(m.data), `"schemaVersion"`, "\n\t \"x-unknown\" : \"\\u00e9\\/\",   \"schemaVersion\"", 1) + "\n\n")
		a := p.want(p.do("PUT", p.path("manifests/v1"), odd, "Content-Type: "+m.desc.MediaType), 201)
		p.pullable(p.location(a), string(odd))
	}},
	{"push", "end-7", should, "parameters of Content-Type are ignored", func(p *probe) {
		m := p.image(nil)
		p.want(p.do("PUT", p.path("manifests/v1"), m.data, "Content-Type: "+m.desc.MediaType+"; charset=utf-8"), 201)
		p.header(p.do("GET", p.path("manifests/v1"), nil, "Accept: "+m.desc.MediaType), "Content-Type", m.desc.MediaType)
	}},
	{"push", "end-7", must, "the list of blobs may be empty", func(p *probe) { p.put("v1", p.image(func(m map[string]any) { m["layers"] = []any{} })) }},
	{"push", "end-7", must, "a manifest with the digest of something else is refused", func(p *probe) {
		m := p.image(nil)
		p.want(p.do("PUT", p.path("manifests", unknown), m.data, "Content-Type: "+m.desc.MediaType), 400)
	}},
	{"push", "end-7", must, "an index of pushed manifests is accepted", func(p *probe) {
		m := p.pushed("v1")
		p.put("index", encode(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []ocispec.Descriptor{m.desc}}))
	}},
	{"push", "end-7", must, "an artifact (artifactType, empty config) is accepted", func(p *probe) {
		p.blob("{}")
		p.put("v1", encode(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "artifactType": "application/vnd.example",
			"config": ocispec.DescriptorEmptyJSON, "layers": []ocispec.Descriptor{ocispec.DescriptorEmptyJSON}}))
	}},
	{"push", "end-7", must, "a tag that is pushed again moves", func(p *probe) {
		p.pushed("v1")
		m := p.image(func(m map[string]any) { m["annotations"] = map[string]string{"a": "b"} })
		p.put("v1", m)
		p.pullable(p.path("manifests/v1"), string(m.data))
	}},
	{"push", "end-7", should, "a manifest of 4 megabytes is accepted", func(p *probe) {
		p.put("v1", p.image(func(m map[string]any) {
			m["annotations"] = map[string]string{"long": strings.Repeat("x", 4_000_000-2000)}
		}))
	}},
	{"push", "end-7", should, "a manifest over the limit answers 413", func(p *probe) {
		m := p.image(func(m map[string]any) { m["annotations"] = map[string]string{"long": strings.Repeat("x", 32<<20)} })
		p.want(p.do("PUT", p.path("manifests/v1"), m.data, "Content-Type: "+m.desc.MediaType), 413)
	}},
	{"push", "Pushing Manifests with Subject", must, "a manifest with a subject is answered with OCI-Subject", func(p *probe) {
		s := p.pushed("v1")
		a := p.put("v2", p.image(func(m map[string]any) { m["subject"] = s.desc }))
		p.header(a, "OCI-Subject", s.desc.Digest.String())
	}},
	{"push", "Pushing Manifests with Subject", must, "an index with a subject is answered with OCI-Subject", func(p *probe) {
		s := p.pushed("v1")
		a := p.put("v2", encode(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []any{}, "subject": s.desc}))
		p.header(a, "OCI-Subject", s.desc.Digest.String())
	}},
}

// tags reads a page of tags.
func (p *probe) tags(query string) ([]string, answer) {
	a := p.want(p.do("GET", p.path("tags/list")+query, nil), 200)
	var list struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(a.body, &list); err != nil || list.Name != p.repo {
		p.fail("%v: %.200s", err, a.body)
	}
	return list.Tags, a
}

func (p *probe) lists(query string, want ...string) answer {
	got, a := p.tags(query)
	if !slices.Equal(got, want) {
		p.fail("tags/list%s gives %v, want %v", query, got, want)
	}
	return a
}

// tagged pushes an image under many tags.
func (p *probe) tagged(tags ...string) {
	m := p.image(nil)
	for _, t := range tags {
		p.put(t, m)
	}
}

var nextLink = regexp.MustCompile(`^<([^>]+)>; *rel="?next"?$`)

// referrers reads a list of referrers, all pages.
func (p *probe) referrers(subject, query string) ([]ocispec.Descriptor, answer) {
	var all []ocispec.Descriptor
	var first answer
	for next, page := p.path("referrers", subject)+query, 0; next != ""; page++ {
		a := p.want(p.do("GET", next, nil), 200)
		if page == 0 {
			first = a
		}
		var index ocispec.Index
		if err := json.Unmarshal(a.body, &index); err != nil || index.SchemaVersion != 2 || index.MediaType != ocispec.MediaTypeImageIndex || index.Manifests == nil {
			p.fail("%v: %.200s", err, a.body)
		}
		all = append(all, index.Manifests...)
		next = ""
		if l := a.Header.Get("Link"); l != "" {
			m := nextLink.FindStringSubmatch(l)
			if m == nil || page > 50 {
				p.fail("Link %q", l)
			}
			u, err := a.Request.URL.Parse(m[1])
			if err != nil {
				p.fail("Link %q", l)
			}
			next = u.String()
		}
	}
	return all, first
}

// refer pushes a referrer.
func (p *probe) refer(s made, change func(m map[string]any)) made {
	m := p.image(func(m map[string]any) {
		m["subject"] = s.desc
		if change != nil {
			change(m)
		}
	})
	p.put(m.desc.Digest.String(), m)
	return m
}

var discovery = []clause{
	{"discovery", "end-8a", must, "tags/list answers 200 with name and tags", func(p *probe) {
		p.tagged("v1")
		p.lists("", "v1")
	}},
	{"discovery", "end-8a", must, "tags are in lexical order, that is without regard to case", func(p *probe) {
		p.tagged("b", "C", "a", "D", "10", "9")
		p.lists("", "10", "9", "a", "b", "C", "D")
	}},
	{"discovery", "end-8a", must, "a repository without tags has an empty list", func(p *probe) {
		m := p.image(nil)
		p.put(m.desc.Digest.String(), m)
		if got, _ := p.tags(""); len(got) != 0 {
			p.fail("%v", got)
		}
	}},
	{"discovery", "end-8a", must, "a repository that is not there answers 404", func(p *probe) { p.want(p.do("GET", p.path("tags/list"), nil), 404) }},
	{"discovery", "end-8b", must, "n gives as many", func(p *probe) {
		p.tagged("c", "a", "b", "d")
		p.lists("?n=2", "a", "b")
	}},
	{"discovery", "end-8b", must, "n beyond all gives all, without a Link", func(p *probe) {
		p.tagged("c", "a", "b")
		p.header(p.lists("?n=30", "a", "b", "c"), "Link", "")
	}},
	{"discovery", "end-8b", must, "n=0 gives an empty list without a Link", func(p *probe) {
		p.tagged("c", "a", "b")
		p.header(p.lists("?n=0"), "Link", "")
	}},
	{"discovery", "end-8b", must, "n and last give those after last", func(p *probe) {
		p.tagged("c", "a", "b", "d")
		p.lists("?n=2&last=a", "b", "c")
	}},
	{"discovery", "end-8b", must, "last alone gives all after it", func(p *probe) {
		p.tagged("c", "a", "b", "d")
		p.lists("?last=b", "c", "d")
	}},
	{"discovery", "end-8b", must, "last may be a tag that is not there", func(p *probe) {
		p.tagged("c", "a", "d")
		p.lists("?last=b", "c", "d")
	}},
	{"discovery", "end-8b", must, "a Link has rel=next, and following it gives every tag once", func(p *probe) {
		want := []string{"a", "b", "c", "d", "e"}
		p.tagged(want...)
		var got []string
		next := p.path("tags/list") + "?n=2"
		for pages := 0; next != "" && pages < 10; pages++ {
			tags, a := p.tags(next[strings.Index(next, "?"):])
			got = append(got, tags...)
			next = ""
			if l := a.Header.Get("Link"); l != "" {
				m := nextLink.FindStringSubmatch(l)
				if m == nil {
					p.fail("Link %q", l)
				}
				next = m[1]
			} else if len(got) < len(want) {
				next = "?n=2&last=" + got[len(got)-1]
			}
		}
		if !slices.Equal(got, want) {
			p.fail("%v", got)
		}
	}},
	{"discovery", "end-12a", must, "referrers of a manifest without any: 200 with an empty index", func(p *probe) {
		s := p.pushed("v1")
		if got, _ := p.referrers(s.desc.Digest.String(), ""); len(got) != 0 {
			p.fail("%v", got)
		}
	}},
	{"discovery", "end-12a", must, "referrers of a digest that is not there: 200 with an empty index", func(p *probe) {
		p.pushed("v1")
		if got, _ := p.referrers(unknown, ""); len(got) != 0 {
			p.fail("%v", got)
		}
	}},
	{"discovery", "end-12a", must, "the Content-Type is that of an index", func(p *probe) {
		s := p.pushed("v1")
		_, a := p.referrers(s.desc.Digest.String(), "")
		p.header(a, "Content-Type", ocispec.MediaTypeImageIndex)
	}},
	{"discovery", "end-12a", must, "an invalid digest answers 400", func(p *probe) {
		p.pushed("v1")
		p.want(p.do("GET", p.path("referrers/sha256:nonsense"), nil), 400)
	}},
	{"discovery", "end-12a", must, "a referrer's descriptor has type, digest, size, artifactType and annotations", func(p *probe) {
		s := p.pushed("v1")
		m := p.refer(s, func(m map[string]any) {
			m["artifactType"], m["annotations"] = "application/vnd.example.sbom", map[string]string{"k": "v"}
		})
		got, _ := p.referrers(s.desc.Digest.String(), "")
		if len(got) != 1 || got[0].MediaType != m.desc.MediaType || got[0].Digest != m.desc.Digest || got[0].Size != m.desc.Size ||
			got[0].ArtifactType != "application/vnd.example.sbom" || got[0].Annotations["k"] != "v" {
			p.fail("%+v", got)
		}
	}},
	{"discovery", "end-12a", must, "without artifactType it is the config's media type", func(p *probe) {
		s := p.pushed("v1")
		p.refer(s, nil)
		if got, _ := p.referrers(s.desc.Digest.String(), ""); len(got) != 1 || got[0].ArtifactType != ocispec.MediaTypeImageConfig {
			p.fail("%+v", got)
		}
	}},
	{"discovery", "end-12a", must, "an index is a referrer, too; without artifactType it has none", func(p *probe) {
		s := p.pushed("v1")
		m := encode(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []any{}, "subject": s.desc, "annotations": map[string]string{"k": "v"}})
		p.put(m.desc.Digest.String(), m)
		if got, _ := p.referrers(s.desc.Digest.String(), ""); len(got) != 1 || got[0].ArtifactType != "" || got[0].MediaType != ocispec.MediaTypeImageIndex || got[0].Annotations["k"] != "v" {
			p.fail("%+v", got)
		}
	}},
	{"discovery", "end-12a", must, "a referrer that came before its subject is listed", func(p *probe) {
		s := p.image(nil)
		m := p.refer(s, func(m map[string]any) { m["artifactType"] = "application/vnd.example" })
		p.put("v1", s)
		if got, _ := p.referrers(s.desc.Digest.String(), ""); len(got) != 1 || got[0].Digest != m.desc.Digest {
			p.fail("%+v", got)
		}
	}},
	{"discovery", "end-12a", must, "a referrer that is pushed twice is listed once", func(p *probe) {
		s := p.pushed("v1")
		m := p.refer(s, nil)
		p.put("again", m)
		if got, _ := p.referrers(s.desc.Digest.String(), ""); len(got) != 1 {
			p.fail("%+v", got)
		}
	}},
	{"discovery", "end-12a", must, "what can't be returned at once comes in pages with a Link", func(p *probe) {
		s := p.pushed("v1")
		for i := range 6 {
			p.refer(s, func(m map[string]any) {
				m["annotations"] = map[string]string{"long": strings.Repeat("x", 1<<20), "i": fmt.Sprint(i)}
			})
		}
		got, first := p.referrers(s.desc.Digest.String(), "")
		if len(got) != 6 {
			p.fail("%d referrers", len(got))
		}
		if len(first.body) > 4<<20 {
			p.fail("a page of %d bytes, more than a manifest may have", len(first.body))
		}
	}},
	{"discovery", "end-12b", should, "artifactType filters, and OCI-Filters-Applied says so", func(p *probe) {
		s := p.pushed("v1")
		m := p.refer(s, func(m map[string]any) { m["artifactType"] = "application/vnd.example.a" })
		p.refer(s, func(m map[string]any) { m["artifactType"] = "application/vnd.example.b" })
		got, a := p.referrers(s.desc.Digest.String(), "?artifactType=application/vnd.example.a")
		if len(got) != 1 || got[0].Digest != m.desc.Digest {
			p.fail("%+v", got)
		}
		p.header(a, "OCI-Filters-Applied", "artifactType")
	}},
	{"discovery", "Enabling the Referrers API", must, "manifests that an index under the fallback tag lists are referrers", func(p *probe) {
		s := p.pushed("v1")
		m := p.refer(s, func(m map[string]any) { m["artifactType"] = "application/vnd.example" })
		d := m.desc
		d.ArtifactType = "application/vnd.example"
		p.put(strings.Replace(s.desc.Digest.String(), ":", "-", 1), encode(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []ocispec.Descriptor{d}}))
		if got, _ := p.referrers(s.desc.Digest.String(), ""); len(got) != 1 || got[0].Digest != m.desc.Digest {
			p.fail("%+v", got)
		}
	}},
	{"discovery", "Referrers Tag Schema", must, "the fallback tag of a client that knows no referrers works as any tag", func(p *probe) {
		s := p.pushed("v1")
		m := p.refer(s, nil)
		tag := strings.Replace(s.desc.Digest.String(), ":", "-", 1)
		p.want(p.do("GET", p.path("manifests", tag), nil), 404)
		index := encode(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []ocispec.Descriptor{m.desc}})
		p.put(tag, index)
		if a := p.want(p.do("GET", p.path("manifests", tag), nil, "Accept: "+ocispec.MediaTypeImageIndex), 200); !bytes.Equal(a.body, index.data) {
			p.fail("other bytes")
		}
	}},
}

var management = []clause{
	{"management", "end-9", must, "DELETE of a tag answers 202, then it is gone and the manifest is not", func(p *probe) {
		m := p.pushed("v1")
		p.want(p.do("DELETE", p.path("manifests/v1"), nil), 202)
		p.want(p.do("GET", p.path("manifests/v1"), nil), 404)
		p.want(p.do("GET", p.path("manifests", m.desc.Digest.String()), nil, "Accept: "+m.desc.MediaType), 200)
	}},
	{"management", "end-9", must, "DELETE of a manifest answers 202, then it and its tags are gone", func(p *probe) {
		m := p.image(nil)
		p.put("v1", m)
		p.put("v2", m)
		p.want(p.do("DELETE", p.path("manifests", m.desc.Digest.String()), nil), 202)
		for _, ref := range []string{m.desc.Digest.String(), "v1", "v2"} {
			p.want(p.do("GET", p.path("manifests", ref), nil, "Accept: "+m.desc.MediaType), 404)
		}
	}},
	{"management", "end-9", must, "DELETE of a manifest leaves the tags of others", func(p *probe) {
		m := p.pushed("v1")
		other := p.image(func(m map[string]any) { m["annotations"] = map[string]string{"a": "b"} })
		p.put("v2", other)
		p.want(p.do("DELETE", p.path("manifests", m.desc.Digest.String()), nil), 202)
		p.pullable(p.path("manifests/v2"), string(other.data))
	}},
	{"management", "end-9", must, "DELETE in a repository that is not there answers 404", func(p *probe) { p.want(p.do("DELETE", p.path("manifests", unknown), nil), 404) }},
	{"management", "end-9", must, "DELETE of a manifest that is not there answers 404", func(p *probe) {
		p.pushed("v1")
		p.want(p.do("DELETE", p.path("manifests", unknown), nil), 404)
	}},
	{"management", "end-9", must, "DELETE of a tag that is not there answers 404", func(p *probe) {
		p.pushed("v1")
		p.want(p.do("DELETE", p.path("manifests/v2"), nil), 404)
	}},
	{"management", "end-9", must, "a referrer that is deleted is no longer listed", func(p *probe) {
		s := p.pushed("v1")
		m := p.refer(s, nil)
		p.want(p.do("DELETE", p.path("manifests", m.desc.Digest.String()), nil), 202)
		if got, _ := p.referrers(s.desc.Digest.String(), ""); len(got) != 0 {
			p.fail("%v", got)
		}
	}},
	{"management", "end-8a", must, "a repository whose tags are deleted has an empty list", func(p *probe) {
		p.pushed("v1")
		p.want(p.do("DELETE", p.path("manifests/v1"), nil), 202)
		if got, _ := p.tags(""); len(got) != 0 {
			p.fail("%v", got)
		}
	}},
	{"management", "end-10", must, "DELETE of a blob answers 202, then it is gone", func(p *probe) {
		d := p.blob("to be deleted from " + p.repo)
		p.want(p.do("DELETE", p.path("blobs", d.Digest.String()), nil), 202)
		p.want(p.do("GET", p.path("blobs", d.Digest.String()), nil), 404)
		p.want(p.do("HEAD", p.path("blobs", d.Digest.String()), nil), 404)
	}},
	{"management", "end-10", must, "DELETE of a blob leaves it to other repositories", func(p *probe) {
		d, one := p.blob("shared by two"), p.repo
		p.repo += "/two"
		p.blob("shared by two")
		p.want(p.do("DELETE", p.path("blobs", d.Digest.String()), nil), 202)
		p.repo = one
		p.pullable(p.path("blobs", d.Digest.String()), "shared by two")
	}},
	{"management", "end-10", must, "DELETE of a blob that is not there answers 404", func(p *probe) {
		p.blob("x")
		p.want(p.do("DELETE", p.path("blobs", unknown), nil), 404)
	}},
	{"management", "end-10", must, "a blob that was deleted can be pushed again", func(p *probe) {
		d := p.blob("again and again")
		p.want(p.do("DELETE", p.path("blobs", d.Digest.String()), nil), 202)
		p.blob("again and again")
		p.pullable(p.path("blobs", d.Digest.String()), "again and again")
	}},
}

var errorCodes = []clause{
	{"errors", "code-1", must, "BLOB_UNKNOWN for a blob that is not there", func(p *probe) {
		p.blob("x")
		p.errorBody(p.want(p.do("GET", p.path("blobs", unknown), nil), 404), "BLOB_UNKNOWN")
		p.errorBody(p.want(p.do("DELETE", p.path("blobs", unknown), nil), 404), "BLOB_UNKNOWN")
	}},
	{"errors", "code-2", must, "BLOB_UPLOAD_INVALID for a Content-Range that is none", func(p *probe) {
		p.errorBody(p.want(p.do("PATCH", p.begin(), []byte("x"), "Content-Range: what"), 400, 416), "BLOB_UPLOAD_INVALID")
	}},
	{"errors", "code-3", must, "BLOB_UPLOAD_UNKNOWN for an upload that is not there", func(p *probe) {
		p.blob("x")
		for _, method := range []string{"GET", "PATCH", "DELETE"} {
			p.errorBody(p.want(p.do(method, p.path("blobs/uploads/00000000-0000-4000-8000-000000000000"), nil), 404), "BLOB_UPLOAD_UNKNOWN")
		}
	}},
	{"errors", "code-4", must, "DIGEST_INVALID for content with another digest", func(p *probe) {
		p.errorBody(p.want(p.do("PUT", with(p.begin(), "digest", unknown), []byte("content")), 400), "DIGEST_INVALID")
	}},
	{"errors", "code-4", must, "DIGEST_INVALID for a digest that is none", func(p *probe) {
		p.errorBody(p.want(p.do("PUT", with(p.begin(), "digest", "sha256:xyz"), []byte("content")), 400), "DIGEST_INVALID")
	}},
	{"errors", "code-4", must, "DIGEST_INVALID for a manifest with another digest", func(p *probe) {
		m := p.image(nil)
		p.errorBody(p.want(p.do("PUT", p.path("manifests", unknown), m.data, "Content-Type: "+m.desc.MediaType), 400), "DIGEST_INVALID")
	}},
	{"errors", "code-5", must, "MANIFEST_BLOB_UNKNOWN for a config that is not there", func(p *probe) {
		m := p.image(func(m map[string]any) {
			m["config"] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.Digest(unknown), Size: 5}
		})
		p.errorBody(p.want(p.do("PUT", p.path("manifests/v1"), m.data, "Content-Type: "+m.desc.MediaType), 400, 404), "MANIFEST_BLOB_UNKNOWN")
	}},
	{"errors", "code-6", must, "MANIFEST_INVALID for what is no manifest", func(p *probe) {
		p.blob("x")
		for _, bad := range []string{"{", `[]`, `{"schemaVersion":2,"mediaType":"text/plain"}`, `{"schemaVersion":7,"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`} {
			p.errorBody(p.want(p.do("PUT", p.path("manifests/v1"), []byte(bad), "Content-Type: "+ocispec.MediaTypeImageManifest), 400), "MANIFEST_INVALID")
		}
	}},
	{"errors", "code-7", must, "MANIFEST_UNKNOWN for a tag and a digest that are not there", func(p *probe) {
		p.pushed("v1")
		p.errorBody(p.want(p.do("GET", p.path("manifests/v2"), nil), 404), "MANIFEST_UNKNOWN")
		p.errorBody(p.want(p.do("GET", p.path("manifests", unknown), nil), 404), "MANIFEST_UNKNOWN")
	}},
	{"errors", "code-8", must, "NAME_INVALID for a name that is none", func(p *probe) {
		p.errorBody(p.want(p.do("GET", "/v2/conformance/NotAName/tags/list", nil), 400, 404), "NAME_INVALID")
	}},
	{"errors", "code-9", must, "NAME_UNKNOWN for a repository that is not there", func(p *probe) {
		p.errorBody(p.want(p.do("GET", p.path("tags/list"), nil), 404), "NAME_UNKNOWN")
	}},
	{"errors", "code-10", must, "SIZE_INVALID when length and range disagree", func(p *probe) {
		p.errorBody(p.want(p.do("PATCH", p.begin(), []byte("0123"), "Content-Range: 0-8", "Content-Type: application/octet-stream"), 400, 416), "SIZE_INVALID")
	}},
	{"errors", "code-13", must, "UNSUPPORTED for a method that an address does not have", func(p *probe) {
		p.pushed("v1")
		p.errorBody(p.want(p.do("POST", p.path("manifests/v1"), nil), 405), "UNSUPPORTED")
	}},
	{"errors", "Error Codes", must, "a body says application/json, and every code is one of the specification's", func(p *probe) {
		p.pushed("v1")
		all := []string{"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN",
			"NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS"}
		for _, rq := range [][2]string{{"GET", "manifests/v9"}, {"GET", "manifests/.x"}, {"GET", "blobs/" + unknown}, {"GET", "blobs/x"}, {"GET", "tags/list?n=x"},
			{"PUT", "manifests/.x"}, {"PATCH", "blobs/uploads/x"}, {"DELETE", "manifests/v9"}, {"GET", "referrers/x"}} {
			a := p.do(rq[0], p.path(rq[1]), nil)
			if a.StatusCode < 400 || a.StatusCode > 499 {
				p.fail("%v: %d", rq, a.StatusCode)
			}
			if mt, _, _ := strings.Cut(a.Header.Get("Content-Type"), ";"); mt != "application/json" {
				p.fail("%v: Content-Type %q", rq, a.Header.Get("Content-Type"))
			}
			p.errorBody(a, all...)
		}
	}},
}

var before = []clause{
	{"before 1.1", "end-1", old, "/v2/ says Docker-Distribution-Api-Version: registry/2.0", func(p *probe) {
		p.header(p.do("GET", "/v2/", nil), "Docker-Distribution-Api-Version", "registry/2.0")
	}},
	{"before 1.1", "end-1", old, "GET /v2 leads to /v2/", func(p *probe) {
		a := p.want(p.do("GET", "/v2", nil), 200, 301, 307, 308)
		if a.StatusCode != 200 {
			p.want(p.do("GET", p.location(a), nil), 200)
		}
	}},
	{"before 1.1", "end-5", old, "a PATCH without Content-Range, of unknown length, appends (streamed upload)", func(p *probe) {
		rq, err := http.NewRequest("PATCH", p.begin(), struct{ *strings.Reader }{strings.NewReader("streamed")})
		if err != nil {
			p.fail("%v", err)
		}
		rq.ContentLength = -1
		rq.Header.Set("Content-Type", "application/octet-stream")
		rs, err := client.Do(rq)
		if err != nil {
			p.fail("%v", err)
		}
		rs.Body.Close()
		a := p.want(answer{rs, nil}, 202)
		p.header(a, "Range", "0-7")
		p.pullable(p.location(p.want(p.do("PUT", with(p.location(a), "digest", digest.FromString("streamed").String()), nil, "Content-Length: 0"), 201)), "streamed")
	}},
	{"before 1.1", "end-4a", old, "uploads are told apart by Docker-Upload-UUID", func(p *probe) {
		if a := p.do("POST", p.path("blobs/uploads/"), nil); a.Header.Get("Docker-Upload-UUID") == "" {
			p.fail("no Docker-Upload-UUID")
		}
	}},
	{"before 1.1", "end-6", old, "a blob that was pushed is answered with Docker-Content-Digest", func(p *probe) {
		d := digest.FromString("content").String()
		p.header(p.do("PUT", with(p.begin(), "digest", d), []byte("content")), "Docker-Content-Digest", d)
	}},
	{"before 1.1", "uploads", old, "DELETE of an upload answers 204, then it is gone", func(p *probe) {
		at := p.begin()
		p.want(p.do("DELETE", at, nil), 204)
		p.want(p.do("GET", at, nil), 404)
	}},
	{"before 1.1", "end-3", old, "a manifest has an ETag, and If-None-Match answers 304", func(p *probe) {
		p.pushed("v1")
		a := p.do("GET", p.path("manifests/v1"), nil, "Accept: "+ocispec.MediaTypeImageManifest)
		if a.Header.Get("ETag") == "" {
			p.fail("no ETag")
		}
		p.want(p.do("GET", p.path("manifests/v1"), nil, "Accept: "+ocispec.MediaTypeImageManifest, "If-None-Match: "+a.Header.Get("ETag")), 304)
	}},
	{"before 1.1", "end-7", old, "Docker's schema 2 manifests keep bytes and type", func(p *probe) {
		m := p.image(func(m map[string]any) { m["mediaType"] = dockerManifest })
		p.put("v1", m)
		a := p.want(p.do("GET", p.path("manifests/v1"), nil, "Accept: "+dockerManifest), 200)
		p.header(a, "Content-Type", dockerManifest)
		p.header(a, "Docker-Content-Digest", m.desc.Digest.String())
	}},
	{"before 1.1", "end-7", old, "Docker's manifest lists keep bytes and type", func(p *probe) {
		m := p.image(func(m map[string]any) { m["mediaType"] = dockerManifest })
		p.put(m.desc.Digest.String(), m)
		d := m.desc
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
		list := encode(map[string]any{"schemaVersion": 2, "mediaType": dockerList, "manifests": []ocispec.Descriptor{d}})
		p.put("v1", list)
		a := p.want(p.do("GET", p.path("manifests/v1"), nil, "Accept: "+dockerList), 200)
		p.header(a, "Content-Type", dockerList)
		p.header(a, "Docker-Content-Digest", list.desc.Digest.String())
	}},
	{"before 1.1", "_catalog", old, "_catalog lists repositories in pages", func(p *probe) {
		p.pushed("v1")
		a := p.want(p.do("GET", "/v2/_catalog?n=1", nil), 200)
		var list struct{ Repositories []string }
		if err := json.Unmarshal(a.body, &list); err != nil || len(list.Repositories) != 1 {
			p.fail("%s", a.body)
		}
		last := p.repo[:len(p.repo)-1] // sorts right before it, as far as others may be between
		a = p.want(p.do("GET", "/v2/_catalog?n=100&last="+last, nil), 200)
		if err := json.Unmarshal(a.body, &list); err != nil || !slices.Contains(list.Repositories, p.repo) {
			p.fail("%s", a.body)
		}
	}},
	{"before 1.1", "end-2", old, "a HEAD of a blob with a Range is no error", func(p *probe) {
		d := p.blob("0123456789")
		p.want(p.do("HEAD", p.path("blobs", d.Digest.String()), nil, "Range: bytes=0-"), 200, 206)
	}},
}
