package scripts

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"tare/internal/test/harness"
)

// keyboard is what a person does at a terminal, one after the other.
type keyboard struct {
	await  string // this has to be seen first, after what was seen before
	send   string
	resize [2]uint16 // rows, columns
	signal syscall.Signal
	docker []string // a command line to run elsewhere
}

// atTerminal runs a command line on a terminal of 24 lines and 90 columns, and returns what was seen and the exit code.
func atTerminal(t *testing.T, e *harness.Engine, program string, args []string, steps []keyboard) (string, int) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(e.Env(), "TERM=xterm", "DOCKER_CLI_HINTS=false")
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 90})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunks := make(chan string)
	go func() {
		defer close(chunks)
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			if n > 0 {
				chunks <- string(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	limit := time.AfterFunc(15*time.Second, func() { cmd.Process.Kill() })
	defer limit.Stop()
	var all strings.Builder
	from, open := 0, true
	for i, s := range steps {
		for s.await != "" && open && !strings.Contains(all.String()[from:], s.await) {
			var c string
			if c, open = <-chunks; open {
				all.WriteString(c)
			}
		}
		at := strings.Index(all.String()[from:], s.await)
		if at < 0 {
			t.Errorf("%s %q: step %d: %q is not to be seen in %q", program, args, i, s.await, all.String()[from:])
			cmd.Process.Kill()
			break
		}
		from += at + len(s.await)
		io.WriteString(f, s.send)
		if s.resize[0] > 0 {
			pty.Setsize(f, &pty.Winsize{Rows: s.resize[0], Cols: s.resize[1]})
			// The stock client may not listen yet: tell it again until it ends.
			again := time.NewTicker(100 * time.Millisecond)
			done := make(chan struct{})
			defer func() { again.Stop(); close(done) }()
			go func() {
				for {
					select {
					case <-again.C:
						cmd.Process.Signal(syscall.SIGWINCH)
					case <-done:
						return
					}
				}
			}()
		}
		if s.signal != 0 {
			cmd.Process.Signal(s.signal)
		}
		if s.docker != nil {
			e.Docker(s.docker...)
		}
	}
	for c := range chunks {
		all.WriteString(c)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
		return all.String(), 128 + int(s.Signal())
	}
	return all.String(), cmd.ProcessState.ExitCode()
}

// A person at a terminal sees and gets the same of both programs.
func TestTerminalParity(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	image := e.Tools()
	stock, ours := programs(t, e)
	for _, c := range []struct {
		name  string
		setup []string // X is the mark
		args  []string
		steps []keyboard
		check []string
	}{
		{"run", nil, []string{"run", "-it", "--rm", image, "sh"},
			[]keyboard{{await: "$ ", send: "echo hi\r"}, {await: "\r\nhi\r\n$ ", send: "exit 5\r"}}, nil},
		{"no input", nil, []string{"run", "-t", "--rm", image, "echo", "x"}, nil, nil},
		{"end of input", nil, []string{"run", "-it", "--rm", image, "cat"}, []keyboard{{send: "a\r"}, {await: "a\r\na\r\n", send: "\x04"}}, nil},
		{"size", nil, []string{"run", "-it", "--rm", "--name", "sizeX", image, "size", "watch"},
			[]keyboard{{await: "24 90", resize: [2]uint16{10, 40}}, {await: "10 40", docker: []string{"kill", "sizeX"}}}, nil},
		{"detach from run", nil, []string{"run", "-it", "--name", "detX", image, "sh"},
			[]keyboard{{await: "$ ", send: "\x10\x11"}}, []string{"inspect", "-f", "{{.State.Running}}", "detX"}},
		{"attach and detach", nil, []string{"attach", "detX"},
			[]keyboard{{send: "\r"}, {await: "$ ", send: "echo again\r"}, {await: "\r\nagain\r\n$ ", send: "\x10\x11"}}, []string{"inspect", "-f", "{{.State.Running}}", "detX"}},
		{"attach with other keys", nil, []string{"attach", "--detach-keys", "ctrl-x,y", "detX"},
			[]keyboard{{send: "\r"}, {await: "$ ", send: "\x18y"}}, []string{"inspect", "-f", "{{.State.Running}}", "detX"}},
		{"attach until the end", nil, []string{"attach", "detX"},
			[]keyboard{{send: "\r"}, {await: "$ ", send: "exit 6\r"}}, nil},
		{"start and attach", nil, []string{"start", "-ai", "detX"}, []keyboard{{await: "$ ", send: "exit 7\r"}}, nil},
		{"exec", []string{"run", "-d", "--name", "upX", image, "sleep", "100"}, []string{"exec", "-it", "upX", "sh"},
			[]keyboard{{await: "$ ", send: "echo in\r"}, {await: "\r\nin\r\n$ ", send: "exit 8\r"}}, nil},
		{"exec size", nil, []string{"exec", "-it", "upX", "size", "watch"}, []keyboard{{await: "24 90", resize: [2]uint16{11, 41}}, {await: "11 41", docker: []string{"kill", "upX"}}}, nil},
		{"detach from exec", []string{"start", "upX"}, []string{"exec", "-it", "upX", "sh"}, []keyboard{{await: "$ ", send: "\x10\x11"}}, nil},
		{"no such command", nil, []string{"exec", "-it", "upX", "nope"}, nil, nil},
		{"prune", nil, []string{"container", "prune"}, []keyboard{{await: "[y/N] ", send: "n\r"}}, nil},
		{"logs", nil, []string{"logs", "-f", "upX"}, []keyboard{{docker: []string{"kill", "upX"}}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			type seen struct {
				screen, after string
				code          int
			}
			run := func(p *program) seen {
				mark := func(list []string) []string {
					var out []string
					for _, s := range list {
						out = append(out, strings.ReplaceAll(s, "X", p.mark))
					}
					return out
				}
				if c.setup != nil {
					e.Docker(mark(c.setup)...)
				}
				steps := append([]keyboard(nil), c.steps...)
				for i := range steps {
					if steps[i].docker != nil {
						steps[i].docker = mark(steps[i].docker)
					}
				}
				var s seen
				s.screen, s.code = atTerminal(t, e, p.path, mark(c.args), steps)
				s.screen = programName.ReplaceAllString(p.even(e, onceEach(s.screen)), "docker")
				if c.check != nil {
					s.after = e.Docker(mark(c.check)...)
				}
				return s
			}
			if want, got := run(stock), run(ours); want != got {
				t.Errorf("docker: %d %s\n%q\ntare:   %d %s\n%q", want.code, want.after, want.screen, got.code, got.after, got.screen)
			}
		})
	}
}

// onceEach drops a line that says what the line before it said: how often a program hears of one size is the kernel's and the
// client's timing, not the client's doing.
func onceEach(screen string) string {
	lines := strings.SplitAfter(screen, "\r\n")
	return strings.Join(slices.CompactFunc(lines, func(a, b string) bool { return a == b && strings.HasPrefix(a, "size ") }), "")
}

// Progress of a pull at a terminal: one line for each layer, in place, colours unless NO_COLOR says no.
func TestPullAtTerminal(t *testing.T) {
	e := harness.Start(t)
	image := e.Registry() + "/" + e.Tools()
	for _, noColor := range []string{"", "1"} {
		t.Setenv("NO_COLOR", noColor)
		e.Docker("rmi", "-f", "tools", image)
		out, code := atTerminal(t, e, e.Bin+"/tare", []string{"pull", image}, nil)
		if code != 0 || !strings.Contains(out, "\x1b[1A\r\x1b[2K") || !strings.Contains(out, "Pull complete") || !strings.HasSuffix(out, "\r\n"+image+":latest\r\n") {
			t.Errorf("%d %q", code, out)
		}
		if colored := strings.Contains(out, "\x1b[32m"); colored == (noColor != "") {
			t.Errorf("NO_COLOR=%s: %q", noColor, out)
		}
		for line := range strings.SplitSeq(out, "\n") {
			for _, part := range regexp.MustCompile(`\x1b\[2K|\x1b\[\d+B\r`).Split(line, -1) {
				if len(part) > 90+len("\x1b[32m\x1b[0m\r") {
					t.Errorf("wider than the terminal: %q", part)
				}
			}
		}
		e.Docker("tag", image, "tools")
	}
}

// The terminal is as before after an attached program was ended by a signal.
func TestTerminalIsRestored(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	image := e.Tools()
	cmd := exec.Command(e.Bin+"/tare", "run", "-it", "--name", "raw", image, "sh")
	cmd.Env = e.Env()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	before := settings(t, slave)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	e.Until("a raw terminal", func() bool { return settings(t, slave) != before })
	e.Until("a running container", func() bool { return e.Try(nil, "exec", "raw", "true").Code == 0 })
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d", code)
	}
	if after := settings(t, slave); after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
}

func settings(t *testing.T, f *os.File) string {
	t.Helper()
	cmd := exec.Command("stty", "-g")
	cmd.Stdin = f
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
