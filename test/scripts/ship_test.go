package scripts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tare/internal/test/harness"
	"tare/internal/test/images"
)

// What Tare tells of images beyond the stock client: where tags were, how images differ, whether the store is whole; and the registries file.
func TestShip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rules := filepath.Join(dir, "registries.yaml")
	os.WriteFile(rules, []byte("registries: {evil.example: {blocked: true}}\n"), 0o600)
	e := harness.Start(t, "--registries-file", rules)
	reg := e.Registry()
	push := func(o images.Options) *images.Image {
		t.Helper()
		img, err := images.Generate(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := img.Push("http://"+reg, "team/app", "1"); err != nil {
			t.Fatal(err)
		}
		return img
	}
	tare := func(args ...string) string {
		t.Helper()
		r := e.Tare(nil, args...)
		if r.Code != 0 {
			t.Fatalf("tare %s: %+v", strings.Join(args, " "), r)
		}
		return r.Stdout
	}
	name := reg + "/team/app:1"
	push(images.Options{Files: map[string][]byte{"etc/motd": []byte("one"), "old": []byte("12345")}})
	tare("pull", name)
	first := strings.TrimSpace(tare("images", "-q", "--no-trunc", name))
	push(images.Options{Files: map[string][]byte{"etc/motd": []byte("three"), "new": []byte("1")}})
	tare("pull", name)
	second := strings.TrimSpace(tare("images", "-q", "--no-trunc", name))

	if got, want := tare("image", "diff", "--bytes", "--format", "{{.Kind}} {{.Path}} {{.Delta}}", first, name), "C /etc/motd +2\nA /new +1\nD /old -5\n"; got != want {
		t.Errorf("diff:\n%s\nwant:\n%s", got, want)
	}
	if r := e.Tare(nil, "image", "diff", "-q", first, second); r.Code != 1 {
		t.Errorf("diff -q of two: %+v", r)
	}
	tare("image", "diff", "-q", first, first)

	if got, want := tare("image", "log", "--no-trunc", "--format", "{{.ID}} {{.Here}}", name), second+" yes\n"+first+" yes\n"; got != want {
		t.Errorf("log:\n%s\nwant:\n%s", got, want)
	}
	if got := strings.TrimSpace(tare("image", "rollback", name)); got != first {
		t.Errorf("rolled back to %s, want %s", got, first)
	}
	if got := strings.TrimSpace(tare("images", "-q", "--no-trunc", name)); got != first {
		t.Errorf("after the rollback the tag is %s", got)
	}
	// An image that is gone comes back from its registry.
	tare("rmi", "-f", second)
	if got := strings.TrimSpace(tare("image", "rollback", "--to", second, name)); got != second {
		t.Errorf("rolled back to %s, want %s", got, second)
	}
	if r := e.Tare(nil, "image", "rollback", "nothing:1"); r.Code == 0 || !strings.Contains(r.Stderr, "No such image: nothing:1") {
		t.Errorf("%+v", r)
	}

	if got := tare("image", "verify", name); !strings.Contains(got, "0 damaged") {
		t.Errorf("verify: %s", got)
	}
	blob := filepath.Join(e.DataRoot, "images/blobs/sha256", strings.TrimPrefix(second, "sha256:"))
	if err := os.WriteFile(blob, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := e.Tare(nil, "system", "verify"); r.Code == 0 || !strings.Contains(r.Stdout, "blob "+second+" damaged") || !strings.Contains(r.Stderr, "--repair") {
		t.Errorf("verify: %+v", r)
	}
	if got := tare("system", "verify", "--repair"); !strings.Contains(got, "blob "+second+" repaired") || !strings.Contains(got, "pulled again from "+reg+"/team/app") {
		t.Errorf("repair: %s", got)
	}
	tare("system", "verify")

	tare("push", "--compression", "zstd", name)

	if r := e.Tare(nil, "pull", "evil.example/x"); r.Code == 0 || !strings.Contains(r.Stderr, "registry evil.example is blocked") {
		t.Errorf("blocked: %+v", r)
	}
	// The file is read again on SIGHUP.
	os.WriteFile(rules, []byte(fmt.Sprintf("registries: {away.example: {mirrors: [%q], fallback: false}}\n", "http://"+reg)), 0o600)
	syscall.Kill(e.Pid(), syscall.SIGHUP)
	e.Until("the mirror is in use", func() bool { return e.Tare(nil, "pull", "away.example/team/app:1").Code == 0 })
}
