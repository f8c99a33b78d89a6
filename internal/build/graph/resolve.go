package graph

import (
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Image is what a graph must know of a base image.
type Image struct {
	ID     digest.Digest
	Config Config
}

// Resolver finds a base image by the name in the Dockerfile; platform is "" for the host's own.
type Resolver func(name, platform string) (Image, error)

// Options is what a request adds to the file.
type Options struct {
	Args     map[string]*string // build args; nil values are as good as absent
	Target   string             // a stage's name or number, "" for the last
	Platform ocispec.Platform   // to build for
	Host     ocispec.Platform   // that builds
	Network  string             // of RUN: "", "default", "host", "none" or a name
	Hosts    []string           // "name:address" lines for /etc/hosts
	ShmSize  int64
	Limits   Limits
	Ulimits  []specs.POSIXRlimit
	Ignore   []string           // the patterns of .dockerignore, for checks
	Allow    []string           // entitlements: "security.insecure"
	Contexts map[string]Context // named ones, by name in lower case
}

// Context is a named build context: a folder, or an image.
type Context struct {
	Folder bool
	Image  string
}

// predefined args need no ARG line and stay out of keys and history.
var predefined = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy",
	"NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"}

// Bases lists the base images that the target surely needs (ONBUILD triggers may add to them), so that they can be
// fetched at once.
func (f *File) Bases(o Options) ([][2]string, error) {
	b, err := f.start(o, nil)
	if err != nil {
		return nil, err
	}
	target, err := b.target()
	if err != nil {
		return nil, err
	}
	var names [][2]string
	seen := map[int]bool{}
	known := map[[2]string]bool{}
	add := func(name, platform string) {
		k := [2]string{name, platform}
		if name != "scratch" && name != "" && !known[k] {
			known[k] = true
			names = append(names, k)
		}
	}
	var visit func(i int) error
	visit = func(i int) error {
		if seen[i] {
			return nil
		}
		seen[i] = true
		s := &f.stages[i]
		name, platform, err := b.base(s)
		if err != nil {
			return f.fail(err, s.Location)
		}
		if c, ok := o.Contexts[strings.ToLower(name)]; ok {
			add(c.Image, platform)
		} else if j, ok := f.stage(name, i); ok && !number(name) {
			if err := visit(j); err != nil {
				return err
			}
		} else if _, err := reference.ParseAnyReference(name); err != nil && name != "" {
			return f.fail(err, s.Location)
		} else {
			add(name, platform)
		}
		for _, c := range s.Commands {
			for _, from := range sources(c) {
				if c, ok := o.Contexts[strings.ToLower(from)]; ok {
					add(c.Image, "")
				} else if j, ok := f.stage(from, i); ok {
					if err := visit(j); err != nil {
						return err
					}
				} else if _, ok := f.stage(from, len(f.stages)); !ok && !number(from) {
					add(from, "")
				}
			}
		}
		return nil
	}
	return names, visit(target)
}

// sources lists the --from values of an instruction.
func sources(c instructions.Command) (names []string) {
	switch c := c.(type) {
	case *instructions.CopyCommand:
		if c.From != "" {
			names = append(names, c.From)
		}
	case *instructions.RunCommand:
		for _, m := range instructions.GetMounts(c) {
			if m.From != "" {
				names = append(names, m.From)
			}
		}
	}
	return names
}

func number(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// stage finds an earlier stage by name.
func (f *File) stage(name string, before int) (int, bool) {
	for i := min(before, len(f.stages)) - 1; i >= 0; i-- {
		if f.stages[i].Name != "" && strings.EqualFold(f.stages[i].Name, name) {
			return i, true
		}
	}
	if number(name) && len(name) < 6 {
		n := 0
		for _, c := range name {
			n = n*10 + int(c-'0')
		}
		if n < before && n < len(f.stages) {
			return n, true
		}
	}
	return 0, false
}

// envs is an ordered list of "key=value" that can be looked up.
type envs []string

func (e envs) Get(key string) (string, bool) {
	for i := len(e) - 1; i >= 0; i-- {
		if k, v, _ := strings.Cut(e[i], "="); shell.EqualEnvKeys(k, key) {
			return v, true
		}
	}
	return "", false
}

func (e envs) Keys() []string {
	keys := make([]string, len(e))
	for i := range e {
		keys[i], _, _ = strings.Cut(e[i], "=")
	}
	return keys
}

// with returns a copy in which key has the value, at its old place if it had one.
func (e envs) with(key, value string) envs {
	out := append(make(envs, 0, len(e)+1), e...)
	for i := range out {
		if k, _, _ := strings.Cut(out[i], "="); shell.EqualEnvKeys(k, key) {
			out[i] = key + "=" + value
			return out
		}
	}
	return append(out, key+"="+value)
}
