package distribution

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"tare/internal/hub"
	"tare/internal/hub/access"
	"tare/internal/hub/config"
	"tare/internal/test/harness"
	"tare/internal/test/images"
)

// guarded is a registry with users and tokens: ann may push to team, everybody may pull from public. It returns host:port.
func guarded(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	c, err := config.Parse("test", []byte("root: "+root+`
auth: {scheme: token}
rights:
  - {repositories: ["public/**"], anonymous: true, actions: [pull]}
  - {repositories: ["public/**", "team/**"], users: [ann], actions: [pull, push, delete]}
`))
	if err != nil {
		t.Fatal(err)
	}
	if err := access.OpenAccounts(root).SetUser("ann", "secret", nil); err != nil {
		t.Fatal(err)
	}
	h, err := hub.New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.Close(); h.Close() })
	return strings.TrimPrefix(s.URL, "http://")
}

// orasRepository is a repository as oras-go sees it.
func orasRepository(t *testing.T, name, user, password string) *remote.Repository {
	t.Helper()
	r, err := remote.NewRepository(name)
	if err != nil {
		t.Fatal(err)
	}
	r.PlainHTTP = true
	c := &auth.Client{Cache: auth.NewCache()}
	if user != "" {
		c.Credential = auth.StaticCredential(r.Reference.Registry, auth.Credential{Username: user, Password: password})
	}
	r.Client = c
	return r
}

func odd(t *testing.T) []*images.OddImage {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tree")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "tare/internal/test/tree")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tree, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all, err := images.Odd(tree)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestOras pushes, pulls, mounts, lists referrers and deletes with oras-go, with tokens.
func TestOras(t *testing.T) {
	host := guarded(t)
	ctx := t.Context()
	for _, img := range odd(t) {
		layout := filepath.Join(t.TempDir(), "layout")
		if err := img.WriteLayout(layout, "v1"); err != nil {
			t.Fatal(err)
		}
		from, err := oci.New(layout)
		if err != nil {
			t.Fatal(err)
		}
		to := orasRepository(t, host+"/team/"+img.Name, "ann", "secret")
		if d, err := oras.Copy(ctx, from, "v1", to, "v1", oras.DefaultCopyOptions); err != nil || d.Digest != img.Root.Digest {
			t.Errorf("%s, push: %s %v", img.Name, d.Digest, err)
			continue
		}
		back := memory.New()
		if d, err := oras.Copy(ctx, orasRepository(t, host+"/team/"+img.Name, "ann", "secret"), "v1", back, "v1", oras.DefaultCopyOptions); err != nil || d.Digest != img.Root.Digest {
			t.Errorf("%s, pull: %s %v", img.Name, d.Digest, err)
		}
	}
	repository := orasRepository(t, host+"/team/index", "ann", "secret")
	subject, err := repository.Resolve(ctx, "v1")
	if err != nil {
		t.Fatal(err)
	}
	d, err := oras.PackManifest(ctx, repository, oras.PackManifestVersion1_1, "application/vnd.example.sbom", oras.PackManifestOptions{Subject: &subject})
	if err != nil {
		t.Fatal(err)
	}
	var found []digest.Digest
	err = repository.Referrers(ctx, subject, "application/vnd.example.sbom", func(all []ocispec.Descriptor) error {
		for _, r := range all {
			found = append(found, r.Digest)
		}
		return nil
	})
	if err != nil || len(found) != 1 || found[0] != d.Digest {
		t.Errorf("referrers %v, %v", found, err)
	}
	// oras-go saw that the registry has the API, and left no tag of the older form.
	var tags []string
	err = repository.Tags(ctx, "", func(page []string) error { tags = append(tags, page...); return nil })
	if err != nil || strings.Join(tags, " ") != "v1" {
		t.Errorf("tags %v, %v", tags, err)
	}
	if err := repository.Delete(ctx, d); err != nil {
		t.Error(err)
	}
	for what, r := range map[string]*remote.Repository{"a wrong password": orasRepository(t, host+"/team/index", "ann", "wrong"), "nobody": orasRepository(t, host+"/team/index", "", ""),
		"another repository": orasRepository(t, host+"/else/x", "ann", "secret")} {
		if err := r.Push(ctx, ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}, strings.NewReader("x")); err == nil {
			t.Errorf("%s may push", what)
		}
	}
	if _, err := oras.Copy(context.Background(), repository, "v1", orasRepository(t, host+"/public/index", "ann", "secret"), "v1", oras.DefaultCopyOptions); err != nil {
		t.Error(err)
	}
	if _, err := orasRepository(t, host+"/public/index", "", "").Resolve(ctx, "v1"); err != nil {
		t.Errorf("nobody may not pull what is public: %v", err)
	}
	if _, err := orasRepository(t, host+"/team/index", "", "").Resolve(ctx, "v1"); err == nil {
		t.Error("nobody may pull what is not public")
	} else if e := errors.Unwrap(err); e == nil && !strings.Contains(err.Error(), "401") {
		t.Error(err)
	}
}

// TestSkopeo logs in, copies in and out, and keeps the digest of every image that fits a layout.
func TestSkopeo(t *testing.T) {
	host := guarded(t)
	dir := t.TempDir()
	run := func(want bool, args ...string) string {
		t.Helper()
		cmd := exec.Command("skopeo", append([]string{"--insecure-policy", "--tmpdir", dir}, args...)...)
		cmd.Env = append(os.Environ(), "REGISTRY_AUTH_FILE="+filepath.Join(dir, "auth.json"))
		out, err := cmd.CombinedOutput()
		if (err == nil) != want {
			t.Fatalf("skopeo %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run(false, "login", "--tls-verify=false", "-u", "ann", "-p", "wrong", host)
	run(true, "login", "--tls-verify=false", "-u", "ann", "-p", "secret", host)
	for i, img := range odd(t) {
		if img.Docker || i%4 != 0 && img.Name != "index" { // `make e2e` has all of them
			continue
		}
		layout := filepath.Join(dir, img.Name)
		if err := img.WriteLayout(layout, "v1"); err != nil {
			t.Fatal(err)
		}
		at := "docker://" + host + "/team/" + img.Name + ":v1"
		run(true, "copy", "-q", "--all", "--preserve-digests", "--dest-tls-verify=false", "oci:"+layout+":v1", at)
		run(true, "copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false", at, "dir:"+layout+".out")
		data, err := os.ReadFile(layout + ".out/manifest.json")
		if err != nil || digest.FromBytes(data) != img.Root.Digest {
			t.Errorf("%s: another manifest came out: %v", img.Name, err)
		}
	}
	run(true, "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+host+"/team/oci-gzip:v1", "docker://"+host+"/public/x:v1")
	run(false, "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+host+"/team/oci-gzip:v1", "docker://"+host+"/else/x:v1")
	run(true, "logout", host)
	run(false, "inspect", "--tls-verify=false", "docker://"+host+"/team/oci-gzip:v1")
	run(true, "inspect", "--tls-verify=false", "docker://"+host+"/public/x:v1")
}

// TestDocker logs in, pushes and pulls with the stock docker command line and our engine. Every image keeps its digest.
func TestDocker(t *testing.T) {
	host := guarded(t)
	open := ours(t)
	e := harness.Start(t)
	if r := e.Try(strings.NewReader("wrong\n"), "login", "-u", "ann", "--password-stdin", host); r.Code == 0 || !strings.Contains(r.Stderr+r.Stdout, "unauthorized") {
		t.Errorf("login with a wrong password: %+v", r)
	}
	if r := e.Try(strings.NewReader("secret\n"), "login", "-u", "ann", "--password-stdin", host); r.Code != 0 || !strings.Contains(r.Stdout, "Login Succeeded") {
		t.Fatalf("login: %+v", r)
	}
	plain := strings.TrimPrefix(open, "http://")
	for i, img := range odd(t) {
		if !img.Runs || i%3 != 0 && img.Name != "docker-list" { // `make e2e` has all of them
			continue
		}
		if err := img.Push(open, "odd/"+img.Name, "v1"); err != nil {
			t.Fatal(err)
		}
		from, to := plain+"/odd/"+img.Name+":v1", host+"/team/"+img.Name+":v1"
		e.Docker("pull", "-q", from)
		e.Docker("tag", from, to)
		e.Docker("push", "-q", to)
		want := img.Root.Digest
		if len(img.Manifests) > 1 {
			want = img.Manifests[1].Digest // the one that was pulled
		}
		r := orasRepository(t, host+"/team/"+img.Name, "ann", "secret")
		if d, err := r.Resolve(t.Context(), "v1"); err != nil || d.Digest != want && d.Digest != img.Root.Digest {
			t.Errorf("%s: pushed as %s (%v), it was %s", img.Name, d.Digest, err, want)
		}
		e.Docker("rmi", from, to)
		e.Docker("pull", "-q", to)
	}
	e.Docker("logout", host)
	if r := e.Try(nil, "pull", "-q", host+"/team/oci-gzip:v1"); r.Code == 0 {
		t.Error("pulled after logout")
	}
}
