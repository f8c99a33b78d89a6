package spec

import (
	"strconv"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"

	"tare/internal/base/fault"
	"tare/internal/runtime"
)

// Log turns a log config (its type is set) into what the supervisor writes to path. Where no size is given
// files rotate at 10 MB and three are kept.
func Log(c container.LogConfig, path string) (runtime.Log, error) {
	l := runtime.Log{Driver: c.Type, Path: path, MaxSize: 10_000_000, MaxFiles: 3}
	switch c.Type {
	case "":
		l.Driver = "json-file"
	case "json-file", "local":
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
			if value != "blocking" {
				return l, fault.Unsupported("the log option mode=%s is not supported", value)
			}
		case "compress":
			if on, err := strconv.ParseBool(value); err != nil || on {
				return l, fault.Unsupported("the log option compress=%s is not supported", value)
			}
		case "labels", "labels-regex", "env", "env-regex", "tag", "max-buffer-size":
			return l, fault.Unsupported("the log option %s is not supported", key)
		default:
			return l, fault.Invalid("unknown log opt '%s' for %s log driver", key, l.Driver)
		}
	}
	return l, nil
}
