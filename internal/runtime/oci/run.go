package oci

import (
	"errors"
	"flag"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"tare/internal/base/fault"
	"tare/internal/runtime/launch"
)

func run(g *global, fs *flag.FlagSet, args []string) (int, error) {
	var o options
	o.flags(fs)
	bundleFlag(fs, &o)
	fs.BoolVar(&o.detach, "detach", false, "don't wait for the container's end")
	fs.BoolVar(&o.detach, "d", false, "short for --detach")
	keep := fs.Bool("keep", false, "don't delete the container after its end")
	noSubreaper := fs.Bool("no-subreaper", false, "don't adopt the container's orphans")
	if err := parse(fs, args, 1, 1); err != nil {
		return 1, err
	}
	if !o.detach && !*noSubreaper {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return 1, fault.Internal("cannot become the parent of orphans: %w", err)
		}
	}
	c, err := g.newContainer(fs.Arg(0), o)
	if err != nil {
		return 1, err
	}
	if err := c.create(); err != nil {
		c.discard()
		return 1, err
	}
	var fg foreground
	if !o.detach {
		fg.begin(c.child.PidFD, c.tty)
		defer fg.end()
	}
	if err := c.start(); err != nil {
		c.discard()
		return 1, err
	}
	if o.detach {
		c.child.Close()
		return 0, nil
	}
	code, err := fg.wait(c.child.Pid)
	if err != nil || *keep {
		return code, err
	}
	return code, c.g.delete(&c.rec, c.dir)
}

// start is the start command within this process: the child waits on the socket of the state folder.
func (c *container) start() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fault.Internal("cannot make a socket: %w", err)
	}
	if err := atSocket(c.dir, func(a unix.Sockaddr) error { return unix.Connect(fd, a) }); err != nil {
		unix.Close(fd)
		return fault.Internal("container %s does not wait for start: %w", c.id, err)
	}
	child := launch.Resume(c.plan, fd)
	defer child.Close()
	_ = os.Remove(filepath.Join(c.dir, socketFile))
	return c.g.started(child, c.child.PidFD, c.spec, &c.rec)
}

// foreground is this process standing in for the one in the container: signals
// go on to it, and its terminal is this one's.
type foreground struct {
	signals chan os.Signal
	tty     *os.File
	old     *unix.Termios
	output  chan struct{} // closed when all output was copied
}

// forwarded are the signals that people and process managers send. Others keep their default action.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT, unix.SIGWINCH,
}

func (f *foreground) begin(pidfd int, tty *os.File) {
	f.signals = make(chan os.Signal, 64)
	signal.Notify(f.signals, forwarded...)
	f.tty = tty
	if tty != nil {
		f.resize()
		f.old = makeRaw(int(os.Stdin.Fd()))
		f.output = make(chan struct{})
		go io.Copy(tty, os.Stdin)
		go func() {
			io.Copy(os.Stdout, tty) // ends with EIO once nobody has the other end open
			close(f.output)
		}()
	}
	go func() {
		for s := range f.signals {
			switch sig := s.(syscall.Signal); sig {
			case unix.SIGWINCH:
				f.resize()
			default:
				_ = unix.PidfdSendSignal(pidfd, sig, nil, 0)
			}
		}
	}()
}

func (f *foreground) resize() {
	if f.tty == nil {
		return
	}
	if ws, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(f.tty.Fd()), unix.TIOCSWINSZ, ws)
	}
}

// wait returns the exit code; 128+n after signal n.
func (f *foreground) wait(pid int) (int, error) {
	var ws unix.WaitStatus
	for {
		// Orphans of the container that came here end here too.
		ended, err := unix.Wait4(-1, &ws, 0, nil)
		if err == nil && ended == pid {
			break
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.EINTR) {
			return 1, fault.Internal("cannot wait for the container: %w", err)
		}
	}
	if f.output != nil {
		<-f.output
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

func (f *foreground) end() {
	signal.Stop(f.signals)
	close(f.signals)
	if f.old != nil {
		_ = unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, f.old)
	}
}

// makeRaw turns off what the terminal in the container does itself (termios(3), "raw mode"); nil if fd is no terminal.
func makeRaw(fd int) *unix.Termios {
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(fd, unix.TCSETS, &raw) != nil {
		return nil
	}
	return old
}
