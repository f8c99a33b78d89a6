package launch

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"tare/internal/runtime/lower"
	"tare/internal/runtime/plan"
)

// chdir enters the working directory. It must be inside the root: links to open
// files are not followed, and the kernel must know a path for it
// (CVE-2024-21626).
func (s *stage) chdir(path string) error {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	fd, err := openIn(root, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchdir(fd); err != nil {
		return err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil {
		return because(err, "it is outside of the root")
	}
	if n < 1 || buf[0] != '/' {
		return &failure{errno: unix.ENOENT, detail: "it is outside of the root"}
	}
	return nil
}

// program is what will be executed, made ready before seccomp may forbid to read files.
type program struct {
	paths []string // to try in order
	args  []string
	env   []string
}

func (p *program) prepare(st *plan.Step) error {
	if st.Op != plan.OpExec {
		return &failure{errno: unix.EBADMSG, detail: "the plan has no exec"}
	}
	p.args, p.env = st.List, st.Env
	home := false
	for _, kv := range p.env {
		home = home || strings.HasPrefix(kv, "HOME=")
	}
	if !home {
		p.env = append(p.env, "HOME="+homeOf(int(st.Num[0])))
	}
	p.paths = lower.SearchPaths(p.args[0], p.env)
	return nil
}

// check finds out before the program is started whether it can be: as its own user would,
// though without his additional groups. Where hooks run in between, they may still bring it.
func (p *program) check(steps []plan.Step) error {
	var ids []uint64
	for i := range steps {
		switch steps[i].Op {
		case plan.OpHook:
			if steps[i].Type == "startContainer" {
				return nil
			}
		case plan.OpUser:
			ids = steps[i].Num
		}
	}
	result := unix.ENOENT
	if len(ids) > 1 && ids[0]|ids[1] != 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(ids[1]), 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(ids[0]), 0, 0)
		defer func() {
			_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
			_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, 0, 0, 0)
		}()
	}
	for _, path := range p.paths {
		if !strings.HasPrefix(path, "/") {
			return nil // from the working directory, which is entered later
		}
		err := runnable(path)
		switch {
		case err == nil:
			return nil
		case err == unix.EISDIR: // no group helps
			if result = unix.EACCES; hasSlash(p.args[0]) {
				return &failure{errno: result, exec: true}
			}
		case err == unix.EACCES:
			result = err.(unix.Errno)
		case hasSlash(p.args[0]):
			result = errnoOf(err)
		}
	}
	if result == unix.EACCES && len(ids) > 2 {
		return nil
	}
	return &failure{errno: result, exec: true}
}

// runnable is what execve(2) looks at first.
func runnable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EISDIR // which execve(2) calls EACCES
	}
	return unix.Faccessat2(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// homeOf reads a user's home directory from the container's /etc/passwd; "/" if it is not there.
func homeOf(uid int) string {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "/"
	}
	defer unix.Close(root)
	fd, err := openIn(root, "/etc/passwd", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return "/"
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "/"
	}
	buf := make([]byte, min(st.Size, 1<<20))
	n, err := unix.Read(fd, buf)
	if err != nil {
		return "/"
	}
	want := strconv.Itoa(uid)
	for line := range strings.Lines(string(buf[:n])) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) >= 6 && f[2] == want {
			if f[5] != "" {
				return f[5]
			}
			break
		}
	}
	return "/"
}

// exec tries the paths as execvp(3) does. syscall.Exec gives back the limit of
// open files that Go's runtime raised at the start.
func (s *stage) exec() error {
	result := unix.ENOENT
	for _, path := range s.program.paths {
		err := errnoOf(syscall.Exec(path, s.program.args, s.program.env))
		switch err {
		case unix.ENOENT, unix.ENOTDIR:
			if hasSlash(s.program.args[0]) {
				result = err
			}
			continue
		case unix.EACCES:
			result = err
			continue
		}
		result = err
		break
	}
	return &failure{errno: result, exec: true}
}
