package launch

import (
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/plan"
)

// ExecError says that the program could not be executed.
type ExecError struct {
	Program string // as the spec names it
	Errno   unix.Errno
}

func (e *ExecError) Error() string {
	if e.Errno == unix.ENOENT && !hasSlash(e.Program) {
		return fmt.Sprintf("exec: %q: executable file not found in $PATH", e.Program)
	}
	return fmt.Sprintf("exec: %q: %s", e.Program, e.Errno.Error())
}

func (e *ExecError) Unwrap() error { return e.Errno }

// Code is what a shell would exit with: 127 not found, else 126.
func (e *ExecError) Code() int { return exitCode(e.Errno) }

func exitCode(errno unix.Errno) int {
	if errno == unix.ENOENT || errno == unix.ENOTDIR {
		return 127
	}
	return 126
}

func hasSlash(s string) bool {
	for i := range len(s) {
		if s[i] == '/' {
			return true
		}
	}
	return false
}

func (p *Process) execError(errno unix.Errno) error {
	e := &ExecError{Errno: errno}
	if n := len(p.steps); n > 0 && len(p.steps[n-1].List) > 0 {
		e.Program = p.steps[n-1].List[0]
	}
	return e
}

func (p *Process) stepError(at int, errno unix.Errno, detail string) error {
	if at >= len(p.steps) {
		return fault.Internal("cannot set the container up: %s%w", colon(detail), errno)
	}
	s := &p.steps[at]
	switch {
	case s.Op == plan.OpBind && detail == sourceMissing:
		return fault.Invalid("bind source path does not exist: %s", path.Join(s.Source, s.Data))
	case s.Op == plan.OpBind && errno == unix.ENOTDIR:
		return fault.Invalid("cannot bind %s on %s (%s): one is a directory and the other is not: %w", s.Source, s.Path, s.Why, errno)
	case s.Op == plan.OpCwd:
		return fault.Invalid("chdir to cwd (%q) set in config.json failed: %s%w", s.Path, colon(detail), errno)
	}
	why := ""
	if s.Why != "" {
		why = " (" + s.Why + ")"
	}
	switch errno {
	case unix.ENOENT, unix.ENOTDIR, unix.EINVAL, unix.ELOOP, unix.EXDEV, unix.ENODEV:
		return fault.Invalid("cannot %s%s: %s%w", s.String(), why, colon(detail), errno)
	}
	return fault.Internal("cannot %s%s: %s%w", s.String(), why, colon(detail), errno)
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return s + ": "
}
