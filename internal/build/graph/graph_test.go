package graph

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tare/internal/base/fault"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// images answers for any name but "missing".
func images(name, platform string) (Image, error) {
	if name == "missing" {
		return Image{}, fault.NotFound("No such image: missing")
	}
	var c Config
	c.Platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	c.RootFS.DiffIDs = []digest.Digest{digest.FromString(name + platform)}
	c.Config.Env = []string{"PATH=/bin", "BASE=" + name}
	c.Config.Cmd = []string{"base"}
	if name == "withtriggers" {
		c.Config.OnBuild = []string{"ENV TRIGGERED=yes", "COPY . /app", "RUN echo $TRIGGERED"}
	}
	return Image{ID: digest.FromString("image " + name), Config: c}, nil
}

var host = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func str(s string) *string { return &s }

func TestGoldens(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.dockerfile")
	if len(files) == 0 {
		t.Fatal("no test data")
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".dockerfile"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f, err := Parse("Dockerfile", text, nil)
			if err != nil {
				t.Fatal(err)
			}
			g, err := f.Graph(Options{Platform: host, Host: host, Args: map[string]*string{"VERSION": str("1.2"), "http_proxy": str("http://p:1")}}, images)
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(name, ".dockerfile") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(g.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), g.String()); d != "" {
				t.Errorf("graph differs (-want +got):\n%s", d)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	tests := []struct{ name, file, target, want string }{
		{"empty", "", "", "the Dockerfile (Dockerfile) cannot be empty"},
		{"only comments", "# nothing\n", "", "file with no instructions"},
		{"unknown instruction", "FROM scratch\n\nFOO bar\n", "", "dockerfile parse error on line 3: unknown instruction: FOO (did you mean FROM?)\nDockerfile:3\n   1 |     FROM scratch\n   2 |\n   3 | >>> FOO bar"},
		{"no FROM", "RUN true\n", "", "no build stage in current context"},
		{"unknown flag", "FROM scratch\nCOPY --nope a b\n", "", "unknown flag: --nope"},
		{"missing base", "FROM missing\n", "", "No such image: missing"},
		{"unknown target", "FROM scratch\n", "web", `target stage "web" could not be found`},
		{"index ahead", "FROM scratch\nCOPY --from=3 a /\n", "", "index out of bounds"},
		{"own stage", "FROM scratch AS x\nCOPY --from=x a /\n", "", "refers to current build stage"},
		{"later stage", "FROM scratch AS x\nCOPY --from=y a /\nFROM scratch AS y\nFROM x\n", "", `cannot copy from stage "y", it needs to be defined before current stage`},
		{"outside", "FROM scratch\nCOPY ../x /\n", "", "COPY failed: forbidden path outside the build context: ../x ()\nDockerfile:2"},
		{"several to a file", "FROM scratch\nCOPY a b /c\n", "", "When using COPY with more than one source file, the destination must be a directory and end with a /"},
		{"bad chmod", "FROM scratch\nCOPY --chmod=99 a b\n", "", "invalid chmod parameter: '99'"},
		{"git in COPY", "FROM scratch\nCOPY https://github.com/x/y.git /\n", "", "source can't be a git ref for COPY"},
		{"git checksum", "FROM scratch\nADD --checksum=nope https://github.com/x/y.git /\n", "", "not a commit"},
		{"keep-git-dir", "FROM scratch\nADD --keep-git-dir x /\n", "", "--keep-git-dir only works with git sources"},
		{"chmod", "FROM scratch\nCOPY --chmod=u~x a /\n", "", "invalid chmod parameter: 'u~x'"},
		{"frontend", "# syntax=example.com/other\nFROM scratch\n", "", "frontend example.com/other is not supported"},
		{"check", "# check=error=true\nFROM scratch as x\n", "", "lint violation found for rules: FromAsCasing"},
		{"url in COPY", "FROM scratch\nCOPY http://x/y /\n", "", "source can't be a URL for COPY"},
		{"secret", "FROM scratch\nRUN --mount=type=secret cat\n", "", "one of source, target required"},
		{"insecure", "FROM scratch\nRUN --security=insecure x\n", "", "security.insecure is not allowed"},
		{"bad modifier", "FROM scratch\nENV A=${B:^x}\n", "", "unsupported modifier"},
		{"port", "FROM scratch\nEXPOSE 99999\n", "", "invalid containerPort: 99999"},
		{"signal", "FROM scratch\nSTOPSIGNAL SIGNOPE\n", "", "invalid signal: SIGNOPE"},
		{"blank base", "ARG X\nFROM $X\n", "", "base name ($X) should not be blank"},
		{"continuation shown whole", "FROM scratch\nEXPOSE \\\n  bad\n", "", "Dockerfile:2\n   1 |     FROM scratch\n   2 | >>> EXPOSE \\\n   3 | >>>   bad"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("Dockerfile", []byte(tt.file), nil)
			if err == nil {
				_, err = f.Graph(Options{Platform: host, Host: host, Target: tt.target}, images)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v\nwant it to contain %s", err, tt.want)
			}
		})
	}
}

func TestBasesListsOnlyNeeded(t *testing.T) {
	f, err := Parse("Dockerfile", []byte("ARG T=2\nFROM a:$T AS x\nFROM b AS y\nCOPY --from=c:1 / /\nFROM d AS z\nFROM x\nCOPY --from=y / /\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Bases(Options{Platform: host, Host: host})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([][2]string{{"a:2", ""}, {"b", ""}, {"c:1", ""}}, got); d != "" {
		t.Error(d)
	}
}

func TestPlatforms(t *testing.T) {
	f, _ := Parse("Dockerfile", []byte("FROM --platform=$BUILDPLATFORM a AS x\nFROM a\nCOPY --from=x / /\n"), nil)
	got, err := f.Bases(Options{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}, Host: host})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([][2]string{{"a", "linux/arm64"}, {"a", "linux/amd64"}}, got); d != "" {
		t.Error(d)
	}
}

func FuzzGraph(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.dockerfile")
	for _, name := range files {
		text, _ := os.ReadFile(name)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Parse("Dockerfile", text, nil)
		if err != nil {
			return
		}
		g, err := file.Graph(Options{Platform: host, Host: host}, images)
		if err != nil {
			return
		}
		for i, s := range g.Steps {
			if s.Parent >= i {
				t.Fatalf("step %d has the later parent %d", i, s.Parent)
			}
		}
		_ = g.String()
	})
}
