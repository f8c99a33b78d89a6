package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

type building struct {
	o                          client.ImageBuildOptions
	file, iidfile, platform    string
	args, labels, ulimits      []string
	memory, memorySwap, shm    string
	quiet, rm, force, compress bool
	progress                   string
}

// NewBuild is `tare build`.
func NewBuild(env *command.Env) *cobra.Command {
	var b building
	cmd := &cobra.Command{
		Use: "build [OPTIONS] PATH | URL | -", Short: "Build an image from a Dockerfile", Args: command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return b.run(cmd.Context(), env, args[0]) },
	}
	fs := cmd.Flags()
	command.List(fs, &b.o.Tags, "tag", "t", `Name and optionally a tag in the "name:tag" format`)
	fs.StringVarP(&b.file, "file", "f", "", `Name of the Dockerfile (Default is "PATH/Dockerfile", "-" reads it from STDIN)`)
	command.List(fs, &b.args, "build-arg", "", "Set build-time variables")
	command.List(fs, &b.labels, "label", "", "Set metadata for an image")
	fs.StringVar(&b.o.Target, "target", "", "Set the target build stage to build")
	fs.StringVar(&b.platform, "platform", "", "Set platform if server is multi-platform capable")
	fs.BoolVar(&b.o.NoCache, "no-cache", false, "Do not use cache when building the image")
	fs.BoolVar(&b.o.PullParent, "pull", false, "Always attempt to pull a newer version of the image")
	fs.BoolVarP(&b.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	fs.StringVar(&b.iidfile, "iidfile", "", "Write the image ID to the file")
	fs.StringVar(&b.o.NetworkMode, "network", "default", "Set the networking mode for the RUN instructions during build")
	command.List(fs, &b.o.ExtraHosts, "add-host", "", "Add a custom host-to-IP mapping (host:ip)")
	command.List(fs, &b.ulimits, "ulimit", "", "Ulimit options")
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
	fs.BoolVar(&b.rm, "rm", true, "Remove intermediate containers after a successful build")
	fs.BoolVar(&b.force, "force-rm", false, "Always remove intermediate containers")
	fs.BoolVar(&b.compress, "compress", false, "Compress the build context using gzip")
	fs.StringVar(&b.progress, "progress", "auto", "Set type of progress output (auto, plain)")
	return cmd
}

func (b *building) run(ctx context.Context, env *command.Env, source string) error {
	if err := b.options(env); err != nil {
		return err
	}
	body, remote, err := contextOf(env, source, b.file)
	if err != nil {
		return err
	}
	b.o.RemoteContext = remote.url
	b.o.Dockerfile = remote.dockerfile
	if body != nil {
		defer body.Close()
	}
	c, err := env.Client(ctx)
	if err != nil {
		return err
	}
	res, err := c.ImageBuild(ctx, body, b.o)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	w := io.Writer(env.Stdout)
	var log bytes.Buffer
	if b.quiet {
		w = &log
	}
	var id string
	err = output.Progress(res.Body, w, env.StdoutTTY() && !b.quiet && b.progress != "plain", func(_ string, data json.RawMessage) {
		var r build.Result
		if json.Unmarshal(data, &r) == nil && r.ID != "" {
			id = r.ID
		}
	})
	if err != nil {
		if b.quiet {
			_, _ = io.Copy(env.Stderr, &log)
		}
		return err
	}
	if id == "" {
		id = strings.TrimSpace(log.String())
	}
	if b.quiet {
		fmt.Fprintln(env.Stdout, id)
	}
	if b.iidfile != "" {
		if err := os.WriteFile(b.iidfile, []byte(id), 0o666); err != nil {
			return fmt.Errorf("cannot write the image ID file: %w", err)
		}
	}
	return nil
}

// options fills in what needs more than a flag.
func (b *building) options(env *command.Env) error {
	b.o.Version, b.o.Remove, b.o.ForceRemove, b.o.SuppressOutput = build.BuilderV1, b.rm, b.force, b.quiet
	b.o.BuildArgs = map[string]*string{}
	for _, a := range b.args {
		k, v, ok := strings.Cut(a, "=")
		switch {
		case k == "":
			return fmt.Errorf("invalid --build-arg %q", a)
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
		l, err := units.ParseUlimit(u)
		if err != nil {
			return fmt.Errorf("invalid argument %q for \"--ulimit\" flag: %w", u, err)
		}
		b.o.Ulimits = append(b.o.Ulimits, l)
	}
	if b.platform != "" {
		p, err := command.ParsePlatform(b.platform)
		if err != nil {
			return err
		}
		b.o.Platforms = []ocispec.Platform{*p}
	}
	var err error
	b.o.AuthConfigs, err = env.AllAuth()
	return err
}

// remoteContext is what the engine has to know of the context besides its bytes.
type remoteContext struct{ url, dockerfile string }

// contextOf opens the context: a folder, sent as a tar without what .dockerignore names; a tar or a Dockerfile from stdin; or a URL that the engine fetches.
func contextOf(env *command.Env, source, file string) (io.ReadCloser, remoteContext, error) {
	var none remoteContext
	switch {
	case source == "-":
		if file == "-" {
			return nil, none, errors.New("invalid argument: can't use stdin for both build context and dockerfile")
		}
		body, dockerfile, err := fromStdin(env.Stdin, file)
		return body, remoteContext{dockerfile: dockerfile}, err
	case isURL(source):
		return nil, remoteContext{url: source, dockerfile: file}, nil
	}
	info, err := os.Stat(source)
	if err != nil {
		return nil, none, fmt.Errorf("unable to prepare context: path %q not found", source)
	}
	if !info.IsDir() {
		return nil, none, fmt.Errorf("unable to prepare context: path %q is not a directory", source)
	}
	var inline []byte
	name := "Dockerfile"
	switch {
	case file == "-":
		if inline, err = io.ReadAll(env.Stdin); err != nil {
			return nil, none, err
		}
		name = ""
	case file != "":
		abs, err := filepath.Abs(file)
		if err != nil {
			return nil, none, err
		}
		absSource, err := filepath.Abs(source)
		if err != nil {
			return nil, none, err
		}
		rel, err := filepath.Rel(absSource, abs)
		if err != nil {
			return nil, none, err
		}
		name = filepath.ToSlash(rel)
		if rel == ".." || strings.HasPrefix(name, "../") { // a Dockerfile outside of the context travels along
			if inline, err = os.ReadFile(file); err != nil {
				return nil, none, fmt.Errorf("unable to prepare context: %w", err)
			}
			name = ""
		}
	}
	if inline == nil {
		if _, err := os.Stat(filepath.Join(source, name)); err != nil {
			return nil, none, fmt.Errorf("unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat %s: no such file or directory", filepath.Join(source, name))
		}
	}
	body, name, err := packContext(source, name, inline)
	return body, remoteContext{dockerfile: name}, err
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}
