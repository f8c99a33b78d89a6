package spec

import (
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
	"tare/internal/runtime"
)

// Log turns a log config (its type is set) into what the supervisor writes to path. Where no size is given
// files rotate at 10 MB and three are kept; those of the driver local at 20 MB, five are kept, and what was rotated is compressed.
func Log(c container.LogConfig, path string) (runtime.Log, error) {
	l := runtime.Log{Driver: c.Type, Path: path, MaxSize: 10_000_000, MaxFiles: 3}
	switch c.Type {
	case "":
		l.Driver = "json-file"
	case "json-file":
	case "local":
		l.MaxSize, l.MaxFiles, l.Compress = 20_000_000, 5, true
	case "none":
		if len(c.Config) > 0 {
			return l, fault.Invalid("the log driver none takes no options")
		}
		return runtime.Log{Driver: "none"}, nil
	default:
		return l, fault.Invalid("logger: no log driver named '%s' is registered", c.Type)
	}
	for key, value := range c.Config {
		switch key {
		case "max-size":
			if value == "-1" {
				l.MaxSize = -1
				continue
			}
			n, err := units.FromHumanSize(value)
			if err != nil || n <= 0 {
				return l, fault.Invalid("invalid max-size %q for the log driver %s", value, l.Driver)
			}
			l.MaxSize = n
		case "max-file":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return l, fault.Invalid("max-file cannot be less than 1 for the log driver %s", l.Driver)
			}
			l.MaxFiles = n
		case "mode":
			l.NonBlocking = value == "non-blocking"
			if value != "blocking" && value != "non-blocking" {
				return l, fault.Invalid("logger: logging mode not supported: %s", value)
			}
		case "max-buffer-size":
			n, err := units.RAMInBytes(value)
			if err != nil || n <= 0 || c.Config["mode"] != "non-blocking" {
				return l, fault.Invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking', and wants a size: %s", value)
			}
			l.MaxBuffer = n
		case "compress":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return l, fault.Invalid("invalid compress %q for the log driver %s", value, l.Driver)
			}
			l.Compress = on
		case "labels", "labels-regex", "env", "env-regex", "tag":
			if l.Driver != "json-file" {
				return l, unknownLogOption(key, l.Driver)
			}
			if _, err := LogAttributes(c, LogSubject{Config: &container.Config{}}); err != nil {
				return l, err
			}
		default:
			return l, unknownLogOption(key, l.Driver)
		}
	}
	if c.Config["compress"] == "true" && (l.MaxFiles == 1 || l.MaxSize < 0) {
		return l, fault.Invalid("compress cannot be true when max-file is less than 2 or max-size is not set")
	}
	return l, nil
}

func unknownLogOption(key, driver string) error {
	return fault.Invalid("unknown log opt '%s' for %s log driver", key, driver)
}

// LogSubject is the container that a log is of, in the words of Docker's tag templates: {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageID}},
// {{.ImageFullID}}, {{.ImageName}}, {{.Command}}, {{.DaemonName}}.
type LogSubject struct {
	FullID, Name, ImageFullID string
	Config                    *container.Config
}

func (s LogSubject) ID() string         { return ids.Short(s.FullID) }
func (s LogSubject) ImageID() string    { return ids.Short(s.ImageFullID) }
func (s LogSubject) ImageName() string  { return s.Config.Image }
func (s LogSubject) Command() string    { return strings.Join(Command(s.Config), " ") }
func (s LogSubject) DaemonName() string { return "docker" }

// LogAttributes are written with every entry, as the options labels, labels-regex, env, env-regex and tag ask.
func LogAttributes(c container.LogConfig, s LogSubject) (map[string]string, error) {
	attrs := map[string]string{}
	take := func(names, pattern string, have map[string]string) error {
		for name := range strings.SplitSeq(c.Config[names], ",") {
			if v, ok := have[name]; ok && name != "" {
				attrs[name] = v
			}
		}
		if c.Config[pattern] == "" {
			return nil
		}
		re, err := regexp.Compile(c.Config[pattern])
		if err != nil {
			return fault.Invalid("invalid log option %s: %w", pattern, err)
		}
		for name, v := range have {
			if re.MatchString(name) {
				attrs[name] = v
			}
		}
		return nil
	}
	env := map[string]string{}
	for _, e := range s.Config.Env {
		name, v, _ := strings.Cut(e, "=")
		env[name] = v
	}
	if err := take("labels", "labels-regex", s.Config.Labels); err != nil {
		return nil, err
	}
	if err := take("env", "env-regex", env); err != nil {
		return nil, err
	}
	if tag := c.Config["tag"]; tag != "" {
		t, err := template.New("tag").Parse(tag)
		var out strings.Builder
		if err == nil {
			err = t.Execute(&out, s)
		}
		if err != nil {
			return nil, fault.Invalid("invalid log option tag: %w", err)
		}
		attrs["tag"] = out.String()
	}
	if len(attrs) == 0 {
		return nil, nil
	}
	return attrs, nil
}
