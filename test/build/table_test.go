package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// A case of the table is a file in table/: a sentence, then lines of settings, then the context's files.
//
//	COPY --chmod takes octal numbers.
//	args: --build-arg A=1                 further flags
//	setup: chmod 600 a && ln -s a link    run in the context
//	peers: buildah                        who has the feature; "buildah buildkit" without the line
//	differs buildah: the reason           what they give is not what Tare gives, and why
//	fails: a part of the message
//	-- Dockerfile --
//	…
//
// table/<name>.golden is what Tare gives. With TARE_BUILD_PEERS, "buildkit=unix:///… buildah=DIR", the peers build every case too
// and have to give the same, or the case a reason (make e2e).
type row struct {
	name, about, args, setup, fails string
	peers                           []string
	differs                         map[string]string
	files                           []file
}

func rows(t *testing.T) (out []row) {
	t.Helper()
	names, err := filepath.Glob("table/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal("no table", err)
	}
	for _, n := range names {
		r := row{name: strings.TrimSuffix(filepath.Base(n), ".txt"), peers: []string{"buildah", "buildkit"}, differs: map[string]string{}}
		head, rest, _ := strings.Cut(read(t, n), "\n-- ")
		for i, line := range strings.Split(head, "\n") {
			key, value, _ := strings.Cut(line, ": ")
			switch peer, is := strings.CutPrefix(key, "differs "); {
			case i == 0:
				r.about = line
			case key == "args":
				r.args = value
			case key == "setup":
				r.setup = value
			case key == "fails":
				r.fails = value
			case key == "peers", key == "peers:":
				r.peers = strings.Fields(value)
			case is:
				r.differs[peer] = value
			case line != "":
				t.Fatalf("%s: what is %q?", n, line)
			}
		}
		for part := range strings.SplitSeq(rest, "\n-- ") {
			name, text, ok := strings.Cut(part, " --\n")
			if !ok {
				t.Fatalf("%s: a file without a name", n)
			}
			if text != "" && !strings.HasSuffix(text, "\n") {
				text += "\n"
			}
			r.files = append(r.files, file{name: name, content: text})
		}
		out = append(out, r)
	}
	return out
}

// context writes the row's folder.
func (r row) context(t *testing.T) string {
	t.Helper()
	dir := example{files: r.files}.folder(t)
	if r.setup != "" {
		cmd := exec.Command("sh", "-euc", "umask 022; "+r.setup)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("setup: %v\n%s", err, out)
		}
	}
	return dir
}

// builder builds a folder, names the image and returns it as a docker-archive, or the error's text.
type builder func(t *testing.T, dir, tag string, args []string) (archive []byte, problem string)

func command(env []string, name string, args ...string) builder {
	return func(t *testing.T, dir, tag string, more []string) ([]byte, string) {
		t.Helper()
		cmd := exec.Command(name, slices.Concat(args, []string{"build", "-t", tag, "--network", "none"}, more, []string{"."})...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, string(out)
		}
		file := filepath.Join(t.TempDir(), "image.tar")
		save := exec.Command(name, slices.Concat(args, []string{"save", "-o", file, tag})...)
		if name == "buildah" {
			save = exec.Command(name, slices.Concat(args, []string{"push", "-q", tag, "docker-archive:" + file})...)
		}
		save.Env = cmd.Env
		if out, err := save.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return data, ""
	}
}

func TestTable(t *testing.T) {
	e := harness.Start(t)
	base(t, e.Try)
	own := command(append(e.Env(), "HOME="+t.TempDir()), filepath.Join(e.Bin, "tare"), "--host", "unix://"+e.Socket)
	baseFile, below := savedBase(t, e)
	all := rows(t)
	t.Run("rows", func(t *testing.T) {
		for _, r := range all {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				got := r.give(t, own, below)
				golden := filepath.Join("table", r.name+".golden")
				if *update {
					write(t, golden, got)
				} else if want := read(t, golden); got != want {
					t.Errorf("%s\ngot\n%s\nwant\n%s", r.about, got, want)
				}
			})
		}
	})
	if len(all) < 100 {
		t.Errorf("%d rows in the table", len(all))
	}
	for word := range strings.FieldsSeq(os.Getenv("TARE_BUILD_PEERS")) {
		name, at, _ := strings.Cut(word, "=")
		t.Run("like "+name, func(t *testing.T) { likePeer(t, name, at, all, baseFile, below) })
	}
}

// savedBase writes base:1 to a file.
func savedBase(t *testing.T, e *harness.Engine) (file string, files map[string]string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "base.tar")
	e.Docker("save", "-o", file, "base:1")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, fileset(t, data)
}

func likePeer(t *testing.T, name, at string, all []row, archive string, below map[string]string) {
	var build builder
	switch name {
	case "buildkit":
		env := []string{"DOCKER_HOST=" + at, "DOCKER_BUILDKIT=1"}
		build = command(env, "/usr/bin/docker") // Debian's, which has BuildKit's client in it
		load := exec.Command("/usr/bin/docker", "load", "-i", archive)
		load.Env = append(os.Environ(), env...)
		if out, err := load.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	case "buildah":
		flags := []string{"--root", at + "/root", "--runroot", at + "/run", "--storage-driver", "vfs"}
		build = command([]string{"BUILDAH_ISOLATION=chroot", "BUILDAH_FORMAT=docker"}, "buildah", flags...)
		if out, err := exec.Command("buildah", append(flags, "pull", "-q", "docker-archive:"+archive)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	default:
		t.Fatalf("unknown peer %s", name)
	}
	for _, r := range all {
		if !slices.Contains(r.peers, name) {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			got, want := r.give(t, build, below), read(t, filepath.Join("table", r.name+".golden"))
			if r.fails != "" { // in other words, but it fails
				got, want = fmt.Sprint(strings.HasPrefix(got, "error ")), "true"
			}
			switch why := r.differs[name]; {
			case got != want && why == "":
				t.Errorf("%s\n%s gives\n%s\ntare\n%s", r.about, name, got, want)
			case got == want && why != "":
				t.Errorf("does not differ, as it should: %s", why)
			}
		})
	}
}

// give is what a builder makes of the row.
func (r row) give(t *testing.T, build builder, below map[string]string) string {
	t.Helper()
	archive, problem := build(t, r.context(t), "row-"+r.name, strings.Fields(r.args))
	if problem != "" {
		if r.fails == "" {
			return "error " + problem
		}
		if i := strings.Index(problem, r.fails); i >= 0 {
			return "error " + r.fails + "\n"
		}
		return "error " + problem
	}
	files := fileset(t, archive)
	var out []string
	for name, what := range files {
		if what == "d0755 "+name+" 0:0" && slices.Contains([]string{"dev", "proc", "run", "sys"}, name) {
			continue // places of mounts, which buildah leaves
		}
		if below[name] != what {
			out = append(out, what+"\n")
		}
	}
	for name := range below {
		if _, ok := files[name]; !ok {
			out = append(out, "gone "+name+"\n")
		}
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(pathOf(a), pathOf(b)) })
	return imageConfig(t, archive) + strings.Join(out, "")
}

func pathOf(line string) string { _, p, _ := strings.Cut(line, " "); return p }

// members reads a tar's regular files.
func members(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeSymlink { // a layer that stands there twice
			out[h.Name] = out[path.Join(path.Dir(h.Name), h.Linkname)]
			continue
		}
		if out[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

type savedImage struct {
	Config string
	Layers []string
}

func saved(t *testing.T, archive []byte) (savedImage, map[string][]byte) {
	t.Helper()
	m := members(t, archive)
	var list []savedImage
	if err := json.Unmarshal(m["manifest.json"], &list); err != nil || len(list) != 1 {
		t.Fatalf("%v: %s", err, m["manifest.json"])
	}
	return list[0], m
}

// imageConfig has a line for each field that is set, besides those that builders fill in as they like.
func imageConfig(t *testing.T, archive []byte) string {
	t.Helper()
	img, m := saved(t, archive)
	var c struct{ Config map[string]any }
	if err := json.Unmarshal(m[img.Config], &c); err != nil {
		t.Fatal(err)
	}
	if labels, ok := c.Config["Labels"].(map[string]any); ok {
		delete(labels, "io.buildah.version")
	}
	for _, k := range []string{"Hostname", "Image", "ArgsEscaped"} {
		delete(c.Config, k)
	}
	data, _ := json.Marshal(c.Config)
	return config(t, string(data))
}

// fileset flattens an image: path → a line about the file. Times are not in it.
func fileset(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	img, m := saved(t, archive)
	type entry struct {
		line string
		dir  bool
		link string // of a hard link, its target
	}
	tree := map[string]entry{}
	remove := func(name string, self bool) {
		for p := range tree {
			if strings.HasPrefix(p, name+"/") || self && p == name || name == "" {
				delete(tree, p)
			}
		}
	}
	for _, l := range img.Layers {
		opened := map[string]bool{} // folders of this layer, which its opaque marks spare
		plain := io.Reader(bytes.NewReader(m[l]))
		if bytes.HasPrefix(m[l], []byte{0x1f, 0x8b}) {
			var err error
			if plain, err = gzip.NewReader(plain); err != nil {
				t.Fatal(err)
			}
		}
		for r := tar.NewReader(plain); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			name := strings.Trim(path.Clean("/"+h.Name), "/")
			dir, basename := path.Split(name)
			if basename == ".wh..wh..opq" {
				for p := range tree {
					if strings.HasPrefix(p, dir) && !opened[p] {
						delete(tree, p)
					}
				}
				continue
			}
			if hidden, ok := strings.CutPrefix(basename, ".wh."); ok {
				remove(path.Join(dir, hidden), true)
				continue
			}
			if name == "" {
				continue
			}
			opened[name] = true
			if h.Typeflag != tar.TypeDir {
				remove(name, true)
			}
			e := entry{dir: h.Typeflag == tar.TypeDir, line: fmt.Sprintf("%c%04o %s %d:%d", kindOf(h.Typeflag), h.Mode&0o7777, name, h.Uid, h.Gid)}
			switch h.Typeflag {
			case tar.TypeReg:
				sum := sha256.New()
				io.Copy(sum, r)
				e.line += fmt.Sprintf(" %d %x", h.Size, sum.Sum(nil)[:6])
			case tar.TypeSymlink:
				e.line = fmt.Sprintf("l %s %d:%d -> %s", name, h.Uid, h.Gid, h.Linkname)
			case tar.TypeLink:
				target := strings.Trim(path.Clean("/"+h.Linkname), "/")
				if e, ok := tree[target]; ok { // alike, whichever name comes first
					mode, rest, _ := strings.Cut(e.line, " ")
					_, rest, _ = strings.Cut(rest, " ")
					tree[name] = entry{line: mode + " " + name + " " + rest, link: target}
				}
				continue
			case tar.TypeChar, tar.TypeBlock:
				e.line += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
			}
			for _, k := range slices.Sorted(func(yield func(string) bool) {
				for k := range h.PAXRecords {
					if !yield(k) {
						return
					}
				}
			}) {
				if x, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
					e.line += fmt.Sprintf(" %s=%q", x, h.PAXRecords[k])
				}
			}
			tree[name] = e
		}
	}
	out := map[string]string{}
	groups := map[string][]string{}
	for p, e := range tree {
		out[p] = e.line
		if e.link != "" {
			groups[e.link] = append(groups[e.link], p)
		}
	}
	for first, more := range groups {
		names := append(more, first)
		slices.Sort(names)
		for _, n := range names {
			if _, ok := out[n]; ok {
				out[n] += " linked with " + strings.Join(names, " ")
			}
		}
	}
	return out
}

func kindOf(flag byte) byte {
	switch flag {
	case tar.TypeDir:
		return 'd'
	case tar.TypeFifo:
		return 'p'
	case tar.TypeChar:
		return 'c'
	case tar.TypeBlock:
		return 'b'
	case tar.TypeLink:
		return 'h'
	}
	return 'f'
}
