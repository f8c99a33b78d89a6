package build

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"tare/internal/base/session"
	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

type building struct {
	o                          client.ImageBuildOptions
	file, iidfile, platform    string
	isolation                  string
	args, labels, ulimits      []string
	memory, memorySwap, shm    string
	quiet, rm, force, compress bool
	progress                   string

	// What POST /build has no words for; it needs an engine with sessions.
	secrets, agents, contexts, outputs []string
	call, metadata                     string
	check, push, load                  bool
	sessionOptions                     session.Options
	to                                 destination
	taken                              chan error // how the result's files arrived
}

// NewBuild is `tare build`.
func NewBuild(env *command.Env) *cobra.Command {
	var b building
	cmd := &cobra.Command{
		Use: "build [OPTIONS] PATH | URL | -", Short: "Build an image from a Dockerfile", Args: command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return b.run(cmd.Context(), env, args[0]) },
	}
	fs := cmd.Flags()
	command.List(fs, &b.o.Tags, "tag", "t", `Name and optionally a tag in the "name:tag" format`, checkTag)
	fs.StringVarP(&b.file, "file", "f", "", `Name of the Dockerfile (Default is "PATH/Dockerfile", "-" reads it from STDIN)`)
	command.List(fs, &b.args, "build-arg", "", "Set build-time variables", checkArg)
	command.List(fs, &b.labels, "label", "", "Set metadata for an image")
	fs.StringVar(&b.o.Target, "target", "", "Set the target build stage to build")
	fs.StringVar(&b.platform, "platform", "", "Set platform if server is multi-platform capable")
	fs.BoolVar(&b.o.NoCache, "no-cache", false, "Do not use cache when building the image")
	fs.BoolVar(&b.o.PullParent, "pull", false, "Always attempt to pull a newer version of the image")
	fs.BoolVarP(&b.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	fs.StringVar(&b.iidfile, "iidfile", "", "Write the image ID to the file")
	fs.StringVar(&b.o.NetworkMode, "network", "default", "Set the networking mode for the RUN instructions during build")
	command.List(fs, &b.o.ExtraHosts, "add-host", "", "Add a custom host-to-IP mapping (host:ip)")
	command.List(fs, &b.ulimits, "ulimit", "", "Ulimit options", checkUlimit)
	fs.StringVar(&b.shm, "shm-size", "", "Size of /dev/shm")
	fs.StringVarP(&b.memory, "memory", "m", "", "Memory limit")
	fs.StringVar(&b.memorySwap, "memory-swap", "", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	fs.Int64VarP(&b.o.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Int64Var(&b.o.CPUPeriod, "cpu-period", 0, "Limit the CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&b.o.CPUQuota, "cpu-quota", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota")
	fs.StringVar(&b.o.CPUSetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&b.o.CPUSetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&b.o.CgroupParent, "cgroup-parent", "", "Set the parent cgroup for the RUN instructions during build")
	command.List(fs, &b.o.SecurityOpt, "security-opt", "", "Security options")
	fs.StringSliceVar(&b.o.CacheFrom, "cache-from", nil, "Images to consider as cache sources")
	fs.StringVar(&b.isolation, "isolation", "", "Container isolation technology")
	fs.BoolVar(&b.o.Squash, "squash", false, "Squash newly built layers into a single new layer")
	command.ContentTrustFlag(fs)
	fs.BoolVar(&b.rm, "rm", true, "Remove intermediate containers after a successful build")
	fs.BoolVar(&b.force, "force-rm", false, "Always remove intermediate containers")
	fs.BoolVar(&b.compress, "compress", false, "Compress the build context using gzip")
	fs.StringVar(&b.progress, "progress", "auto", "Set type of progress output (auto, plain, tty, rawjson)")
	fs.StringArrayVar(&b.secrets, "secret", nil, `Secret to expose to the build ("id=mysecret[,src=/local/secret|,env=VARIABLE]")`)
	fs.StringArrayVar(&b.agents, "ssh", nil, `SSH agent socket to expose to the build ("default|<id>[=<socket>]")`)
	fs.StringArrayVar(&b.contexts, "build-context", nil, `Additional build contexts ("name=path", "name=docker-image://image")`)
	fs.StringArrayVarP(&b.outputs, "output", "o", nil, `Output destination ("type=local,dest=path", "type=tar,dest=path", "type=docker|oci,dest=path", "type=registry")`)
	fs.StringVar(&b.metadata, "metadata-file", "", "Write build result metadata to a file")
	fs.StringVar(&b.call, "call", "build", `Set method for evaluating build ("build", "check")`)
	fs.BoolVar(&b.check, "check", false, `Shorthand for "--call=check"`)
	fs.BoolVar(&b.push, "push", false, `Shorthand for "--output=type=registry"`)
	fs.BoolVar(&b.load, "load", false, "Keep the image in the engine, as without --output")
	fs.BoolVar(&b.sessionOptions.Explain, "explain", false, "Tell for every step why it ran, or when it had run")
	fs.StringArrayVar(&b.sessionOptions.NoCacheFilter, "no-cache-filter", nil, "Do not use cache for the stages")
	fs.StringArrayVar(&b.sessionOptions.Allow, "allow", nil, `Allow extra privileged entitlement ("network.host", "security.insecure")`)
	return cmd
}

// special tells which option, if any, needs a session.
func (b *building) special() string {
	for name, set := range map[string]bool{"--secret": len(b.secrets) > 0, "--ssh": len(b.agents) > 0, "--build-context": len(b.contexts) > 0,
		"--explain": b.sessionOptions.Explain, "--check": b.sessionOptions.Check, "--no-cache-filter": len(b.sessionOptions.NoCacheFilter) > 0,
		"--allow": len(b.sessionOptions.Allow) > 0, "--output": b.sessionOptions.Files} {
		if set {
			return name
		}
	}
	return ""
}

func checkTag(s string) error {
	_, err := reference.ParseNormalizedNamed(s)
	return err
}

func checkArg(s string) error {
	if k, _, _ := strings.Cut(s, "="); k == "" {
		return fmt.Errorf("invalid environment variable: %s", s)
	}
	return nil
}

func checkUlimit(s string) error {
	_, err := units.ParseUlimit(s)
	return err
}

func (b *building) run(ctx context.Context, env *command.Env, source string) error {
	if err := b.options(env); err != nil {
		return err
	}
	from, err := contextOf(env, source, b.file)
	if err != nil {
		return err
	}
	w := io.Writer(env.Stdout)
	if b.to.dest == "-" {
		w = env.Stderr
	}
	var log bytes.Buffer
	if b.quiet {
		w = &log
	}
	failed := func(err error) error {
		_, _ = log.WriteTo(env.Stderr) // nobody wants quiet failures
		return err
	}
	messages, err := b.begin(ctx, env, from, w)
	if err != nil {
		return failed(err)
	}
	defer messages.Close()
	var id string
	var terminal *output.Terminal
	if b.progress == "rawjson" {
		messages = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(messages, env.Stderr), messages}
		w = io.Discard
	}
	if !b.quiet && b.progress != "plain" && b.progress != "rawjson" && b.to.dest != "-" {
		terminal = output.TerminalOf(env.Stdout)
	}
	err = output.Progress(messages, w, terminal, func(_ string, data json.RawMessage) {
		var r build.Result
		if json.Unmarshal(data, &r) == nil && r.ID != "" {
			id = r.ID
		}
	})
	if err != nil {
		return failed(err)
	}
	if b.sessionOptions.Check {
		return nil
	}
	if b.sessionOptions.Files {
		select { // the engine is done; what it sent may still be on its way to the disk
		case err := <-b.taken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if id == "" {
		lines := strings.Fields(log.String())
		if len(lines) == 0 {
			return errors.New("the engine's answer names no image")
		}
		id = lines[len(lines)-1]
	}
	if b.quiet {
		fmt.Fprintln(env.Stdout, id)
	}
	if b.iidfile != "" {
		if err := os.WriteFile(b.iidfile, []byte(id), 0o666); err != nil {
			return fmt.Errorf("cannot write the image ID file: %w", err)
		}
	}
	if b.metadata != "" {
		data, err := json.MarshalIndent(map[string]any{"containerimage.config.digest": id, "containerimage.digest": id, "image.name": strings.Join(b.o.Tags, ",")}, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(b.metadata, append(data, '\n'), 0o666); err != nil {
			return fmt.Errorf("cannot write the metadata file: %w", err)
		}
	}
	return b.to.finish(ctx, env, id, b.o.Tags)
}

// sentContext says how long the context was when all of it was read.
type sentContext struct {
	io.ReadCloser
	n   int64
	say func(int64)
}

func (s *sentContext) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.n += int64(n)
	if errors.Is(err, io.EOF) && s.say != nil {
		s.say(s.n)
		s.say = nil
	}
	return n, err
}

// options fills in what needs more than a flag.
func (b *building) options(env *command.Env) error {
	b.o.Version, b.o.Remove, b.o.ForceRemove, b.o.SuppressOutput = build.BuilderV1, b.rm, b.force, b.quiet
	switch b.progress {
	case "auto", "plain", "tty", "rawjson":
	default:
		return fmt.Errorf("invalid argument %q for \"--progress\" flag: must be auto, plain, tty or rawjson", b.progress)
	}
	switch b.call {
	case "", "build":
	case "check":
		b.check = true
	default:
		return fmt.Errorf("invalid argument %q for \"--call\" flag: must be build or check", b.call)
	}
	b.sessionOptions.Check = b.check
	for _, a := range b.sessionOptions.Allow {
		if a != "network.host" && a != "security.insecure" {
			return fmt.Errorf("invalid entitlement %q: must be network.host or security.insecure", a)
		}
	}
	var err error
	if b.to, err = parseOutput(b.outputs); err != nil {
		return err
	}
	b.to.push = b.to.push || b.push
	b.sessionOptions.Files = b.to.kind == "local" || b.to.kind == "tar"
	if b.to.name != "" {
		b.o.Tags = append(b.o.Tags, strings.Split(b.to.name, ",")...)
	}
	b.taken = make(chan error, 1)
	b.o.Isolation = container.Isolation(b.isolation)
	b.o.BuildArgs = map[string]*string{}
	for _, a := range b.args {
		k, v, ok := strings.Cut(a, "=")
		switch {
		case ok:
			b.o.BuildArgs[k] = &v
		default: // taken from the environment, if it is there
			if v, ok := os.LookupEnv(k); ok {
				b.o.BuildArgs[k] = &v
			} else {
				b.o.BuildArgs[k] = nil
			}
		}
	}
	if v, ok := os.LookupEnv("SOURCE_DATE_EPOCH"); ok && b.o.BuildArgs["SOURCE_DATE_EPOCH"] == nil {
		b.o.BuildArgs["SOURCE_DATE_EPOCH"] = &v
	}
	b.o.Labels = map[string]string{}
	for _, l := range b.labels {
		k, v, _ := strings.Cut(l, "=")
		b.o.Labels[k] = v
	}
	for flag, f := range map[string]struct {
		value string
		to    *int64
	}{"memory": {b.memory, &b.o.Memory}, "memory-swap": {b.memorySwap, &b.o.MemorySwap}, "shm-size": {b.shm, &b.o.ShmSize}} {
		switch {
		case f.value == "":
		case f.value == "-1":
			*f.to = -1
		default:
			n, err := units.RAMInBytes(f.value)
			if err != nil {
				return fmt.Errorf("invalid argument %q for \"--%s\" flag: %w", f.value, flag, err)
			}
			*f.to = n
		}
	}
	for _, u := range b.ulimits {
		l, _ := units.ParseUlimit(u) // checked when it was set
		b.o.Ulimits = append(b.o.Ulimits, l)
	}
	if b.platform != "" {
		p, err := command.ParsePlatform(b.platform)
		if err != nil {
			return err
		}
		b.o.Platforms = []ocispec.Platform{*p}
	}
	b.o.AuthConfigs, err = env.AllAuth()
	return err
}

// origin is where the context comes from: one of dir, stdin and url.
type origin struct {
	dir        string
	dockerfile string // its name; in dir unless inline is set
	inline     []byte // a Dockerfile that is not in the context
	patterns   []string
	stdin      io.ReadCloser // a tar
	url        string
}

// begin sends the build to the engine: by a session, or to an engine that knows none as a tar.
func (b *building) begin(ctx context.Context, env *command.Env, from *origin, w io.Writer) (io.ReadCloser, error) {
	c, err := env.Client(ctx)
	if err != nil {
		return nil, err
	}
	b.o.Dockerfile, b.o.RemoteContext = from.dockerfile, from.url
	if from.dir != "" {
		l, err := lookAt(ctx, from.dir, from.patterns)
		if err != nil {
			return nil, err
		}
		begin := session.Begin{Contexts: map[string]session.Context{"": {Digest: l.digest()}}, Ignore: from.patterns, Options: b.sessionOptions,
			Origin: absolute(from.dir) + " " + from.dockerfile}
		if begin.Dockerfile, err = from.file(); err != nil {
			return nil, err
		}
		t := &talk{contexts: map[string]*local{"": l}, output: func(r io.Reader) { b.taken <- b.to.take(r, env) }}
		if err := b.offer(ctx, t, &begin); err != nil {
			return nil, err
		}
		t.begun = func() {
			fmt.Fprintf(w, "Sending build context to Docker daemon  %s\n", units.HumanSize(float64(l.f.size())))
		}
		if messages, err := t.start(ctx, c, b.o, begin); !errors.Is(err, errNoSessions) {
			return messages, err
		}
		l.f.close()
	}
	if o := b.special(); o != "" {
		return nil, fmt.Errorf("%s needs a folder as the build context, and an engine with build sessions", o)
	}
	body, err := from.tar(&b.o)
	if err != nil {
		return nil, err
	}
	var r io.Reader // an interface that holds nil is not nil
	if body != nil {
		defer body.Close()
		r = &sentContext{ReadCloser: body, say: func(n int64) {
			fmt.Fprintf(w, "Sending build context to Docker daemon  %s\n", units.HumanSize(float64(n)))
		}}
	}
	res, err := c.ImageBuild(ctx, r, b.o)
	return res.Body, err
}

// offer adds what the engine may ask for besides the context.
func (b *building) offer(ctx context.Context, t *talk, begin *session.Begin) (err error) {
	if t.secrets, err = parseSecrets(b.secrets); err != nil {
		return err
	}
	if t.agents, err = parseAgents(b.agents); err != nil {
		return err
	}
	named, err := parseContexts(b.contexts)
	if err != nil {
		return err
	}
	for _, c := range named {
		if c.image != "" {
			begin.Contexts[c.name] = session.Context{Image: c.image}
			continue
		}
		patterns, err := ignorePatterns(c.dir, "", false)
		if err != nil {
			return err
		}
		l, err := lookAt(ctx, c.dir, patterns)
		if err != nil {
			return err
		}
		t.contexts[c.name], begin.Contexts[c.name] = l, session.Context{Digest: l.digest()}
	}
	for id := range t.secrets {
		begin.Secrets = append(begin.Secrets, id)
	}
	for id := range t.agents {
		begin.SSH = append(begin.SSH, id)
	}
	return nil
}

// file is the Dockerfile as a session's Begin tells it.
func (o *origin) file() (*session.File, error) {
	text := o.inline
	if text == nil {
		var err error
		if text, err = os.ReadFile(filepath.Join(o.dir, o.dockerfile)); err != nil {
			return nil, fmt.Errorf("unable to prepare context: %w", err)
		}
	}
	return &session.File{Name: cmp.Or(o.dockerfile, "Dockerfile"), Text: text}, nil
}

// tar is the context for engines without sessions.
func (o *origin) tar(options *client.ImageBuildOptions) (body io.ReadCloser, err error) {
	if o.dir == "" {
		return o.stdin, nil
	}
	body, options.Dockerfile, err = packContext(o.dir, o.dockerfile, o.inline)
	return body, err
}

// contextOf finds out what the context is: a folder, a tar or a Dockerfile from stdin, or a URL that the engine fetches.
func contextOf(env *command.Env, source, file string) (*origin, error) {
	switch {
	case source == "-":
		if file == "-" {
			return nil, errors.New("invalid argument: can't use stdin for both build context and dockerfile")
		}
		body, dockerfile, err := fromStdin(env.Stdin, file)
		return &origin{stdin: body, dockerfile: dockerfile}, err
	case isURL(source):
		return &origin{url: source, dockerfile: file}, nil
	}
	info, err := os.Stat(source)
	if err != nil {
		return nil, fmt.Errorf("unable to prepare context: path %q not found", source)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("unable to prepare context: context must be a directory: %s", absolute(source))
	}
	o := &origin{dir: source, dockerfile: "Dockerfile"}
	switch {
	case file == "-":
		if o.inline, err = io.ReadAll(env.Stdin); err != nil {
			return nil, err
		}
		o.dockerfile = ""
	case file != "":
		rel, err := filepath.Rel(absolute(source), absolute(file))
		if err != nil {
			return nil, err
		}
		o.dockerfile = filepath.ToSlash(rel)
		if rel == ".." || strings.HasPrefix(o.dockerfile, "../") { // a Dockerfile outside of the context travels along
			if o.inline, err = os.ReadFile(file); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil, fmt.Errorf("unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat %s: no such file or directory", absolute(file))
				}
				return nil, fmt.Errorf("unable to prepare context: %w", err)
			}
			o.dockerfile = ""
		}
	}
	if o.inline == nil {
		if _, err := os.Stat(filepath.Join(source, o.dockerfile)); err != nil {
			return nil, fmt.Errorf("unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat %s: no such file or directory", absolute(filepath.Join(source, o.dockerfile)))
		}
	}
	o.patterns, err = ignorePatterns(source, o.dockerfile, false)
	return o, err
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}
