package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// runtimes measures tare-run as a command beside crun and runc: the same bundle, and an exec into it.
func (b *bench) runtimes() error {
	bundle := filepath.Join(b.work, "bundle")
	if err := b.makeBundle(bundle); err != nil {
		return err
	}
	list := []*engine{
		{name: "tare", command: []string{filepath.Join(b.bin, "tare-run")}},
		{name: "crun", command: []string{"/usr/bin/crun"}},
		{name: "runc", command: []string{"/usr/sbin/runc"}},
	}
	for _, e := range list {
		e.command = append(e.command, "--root", filepath.Join(b.work, "state."+e.name))
		v, err := e.output("--version")
		if err != nil {
			return err
		}
		e.version = strings.Fields(v)[2]
	}
	rounds := max(b.rounds, 10)
	times := map[string][]float64{}
	for r := range rounds + 1 {
		for _, e := range list {
			took, err := timed(func() error { return e.do("run", "--bundle", bundle, fmt.Sprintf("bench-%s-%d", e.name, r)) })
			if err != nil {
				return err
			}
			if r > 0 {
				times[e.name] = append(times[e.name], took)
			}
			time.Sleep(pause / 5)
		}
	}
	b.recordIn(1, "whole `run` of a bundle", "ms", "≤ 0.5× crun, ≤ 0.2× runc", times)

	if err := b.setProcess(bundle, "sleep", "100000"); err != nil {
		return err
	}
	for _, e := range list {
		c := e.cmd("run", "--detach", "--bundle", bundle, "bench-"+e.name)
		if err := c.Run(); err != nil { // its output would be the container's
			return fmt.Errorf("%s run --detach: %w", e.name, err)
		}
		defer e.do("delete", "--force", "bench-"+e.name)
	}
	times = map[string][]float64{}
	for r := range rounds + 1 {
		for _, e := range list {
			took, err := timed(func() error { return e.do("exec", "bench-"+e.name, "true") })
			if err != nil {
				return err
			}
			if r > 0 {
				times[e.name] = append(times[e.name], took)
			}
			time.Sleep(pause / 5)
		}
	}
	b.recordIn(1, "`exec` into a container", "ms", "≤ 0.5× crun", times)
	b.notes = append(b.notes, fmt.Sprintf("The runtimes beside tare-run are Debian's: crun %s, runc %s. The newest (crun 1.28, runc 1.4) are not packaged there.", list[1].version, list[2].version))
	return nil
}

// makeBundle has what `runc spec` writes, without a terminal, over a root of busybox.
func (b *bench) makeBundle(dir string) error {
	root := filepath.Join(dir, "rootfs", "bin")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "busybox"), data, 0o755)
	}
	for _, name := range []string{"true", "sleep", "sh"} {
		if err == nil {
			err = os.Symlink("busybox", filepath.Join(root, name))
		}
	}
	if err != nil {
		return err
	}
	if out, err := exec.Command("/usr/sbin/runc", "spec", "--bundle", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	return b.setProcess(dir, "true")
}

func (b *bench) setProcess(bundle string, args ...string) error {
	file := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"] = false, args
	delete(process, "rlimits") // above what a machine without CAP_SYS_RESOURCE may
	if data, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// api calls an engine's API on its socket.
func api(socket string) func(method, path, body string) error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	return func(method, path, body string) error {
		req, err := http.NewRequest(method, "http://engine"+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var answer bytes.Buffer
		_, _ = answer.ReadFrom(resp.Body)
		if resp.StatusCode >= 400 {
			return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer.String())
		}
		return nil
	}
}

// inside times the start alone, as the engine's API answers it, with the bridge network; one at a time and eight.
func (b *bench) inside() error {
	sockets := map[string]string{"tare": "/run/tare/tared.sock", "docker": "/run/docker.sock"}
	const count = 48
	one, eight := map[string][]float64{}, map[string][]float64{}
	for _, e := range b.engines[:2] {
		call := api(sockets[e.name])
		create := func(prefix string) error {
			for i := range count {
				if err := call("POST", fmt.Sprintf("/containers/create?name=%s%d", prefix, i), `{"Image":"small","Cmd":["sleep","100000"]}`); err != nil {
					return err
				}
			}
			return nil
		}
		remove := func(prefix string) error {
			args := []string{"rm", "-f"}
			for i := range count {
				args = append(args, prefix+strconv.Itoa(i))
			}
			return e.do(args...)
		}
		if err := create("one"); err != nil {
			return err
		}
		began := time.Now()
		for i := range count {
			took, err := timed(func() error { return call("POST", fmt.Sprintf("/containers/one%d/start", i), "") })
			if err != nil {
				return err
			}
			one[e.name] = append(one[e.name], took)
		}
		alone := time.Since(began)
		if err := remove("one"); err != nil {
			return err
		}
		if err := create("eight"); err != nil {
			return err
		}
		began = time.Now()
		var group sync.WaitGroup
		errs := make([]error, 8)
		for w := range errs {
			group.Go(func() {
				for i := w; i < count && errs[w] == nil; i += len(errs) {
					errs[w] = call("POST", fmt.Sprintf("/containers/eight%d/start", i), "")
				}
			})
		}
		group.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		eight[e.name] = []float64{float64(alone) / float64(time.Since(began))}
		if err := remove("eight"); err != nil {
			return err
		}
	}
	b.record("start inside the engine, bridge (p50)", "ms", "≤ 3 ms", one)
	b.record("starts, 8 at a time: rate against 1", "×", "→ the cores", eight)
	return nil
}

// hundred stops a hundred containers that obey SIGTERM, and removes them; and looks at the memory of 500.
func (b *bench) hundred() error {
	times := map[string][]float64{}
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("stop%d", i))
	}
	for range 2 {
		for _, e := range b.engines {
			for _, n := range names {
				if err := e.do("run", "-d", "--network", "none", "--name", n, "small", "sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"); err != nil {
					return err
				}
			}
			took, err := timed(func() error {
				if err := e.do(append([]string{"stop"}, names...)...); err != nil {
					return err
				}
				return e.do(append([]string{"rm"}, names...)...)
			})
			if err != nil {
				return err
			}
			times[e.name] = append(times[e.name], took)
		}
	}
	b.record("`stop` and `rm` of 100", "ms", "≤ 0.15× docker", times)

	const many = 500
	tare := b.engines[0]
	before := memory("tare-run")
	args := []string{"rm", "-f"}
	for i := range many {
		args = append(args, fmt.Sprintf("many%d", i))
		if err := tare.do("run", "-d", "--network", "none", "--name", args[i+2], "small", "sleep", "100000"); err != nil {
			return err
		}
	}
	time.Sleep(2 * rest)
	b.record(fmt.Sprintf("supervision of each of %d (PSS)", many), "KiB", "≤ 10 KiB", map[string][]float64{"tare": {float64(memory("tare-run")-before) / many}})
	return tare.do(args...)
}

// logged is how many bytes a container writes for logs, in lines of 100 bytes.
const logged = 20 << 20

// logs counts the CPU time that an engine needs to write a container's output to a json-file.
func (b *bench) logs() error {
	rate := map[string][]float64{}
	programs := map[string][]string{"tare": {"tared", "tare-run"}, "docker": {"dockerd", "containerd", "containerd-shim"}}
	line := strings.Repeat("x", 99)
	for range 3 {
		for _, e := range b.engines[:2] {
			before := cpuTime(programs[e.name])
			if err := e.do("run", "-d", "--network", "none", "--name", "logs", "small", "sh", "-c", fmt.Sprintf("yes %s | head -c %d; exec sleep 100000", line, logged)); err != nil {
				return err
			}
			file, err := e.output("inspect", "-f", "{{.LogPath}}", "logs")
			if err != nil {
				return err
			}
			for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
				if info, err := os.Stat(file); err == nil && info.Size() > logged*5/4 {
					break
				}
				if time.Now().After(end) {
					return fmt.Errorf("%s wrote no log of that size to %s", e.name, file)
				}
			}
			time.Sleep(rest / 2)
			rate[e.name] = append(rate[e.name], logged/1e6/(cpuTime(programs[e.name])-before))
			if err := e.do("rm", "-f", "logs"); err != nil {
				return err
			}
		}
	}
	b.record("log, per CPU second", "MB/s", "≥ 5× docker", rate)
	return nil
}

// cpuTime adds up, in s, what processes of these programs used; containerd's shims count by their prefix.
func cpuTime(programs []string) (sum float64) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		cmdline, _ := os.ReadFile(d + "/cmdline")
		name, _, _ := strings.Cut(string(cmdline), "\x00")
		name, _, _ = strings.Cut(name, " ")
		name = filepath.Base(name)
		for _, p := range programs {
			if name != p && !(p == "containerd-shim" && strings.HasPrefix(name, p)) {
				continue
			}
			stat, _ := os.ReadFile(d + "/stat")
			_, rest, _ := strings.Cut(string(stat), ") ")
			if f := strings.Fields(rest); len(f) > 12 {
				user, _ := strconv.ParseFloat(f[11], 64)
				system, _ := strconv.ParseFloat(f[12], 64)
				sum += (user + system) / 100 // USER_HZ
			}
		}
	}
	return sum
}

// host runs the same work in a container and beside it: this program, which times it itself.
func (b *bench) host() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	volume := filepath.Join(b.work, "volume")
	if err := os.MkdirAll(volume, 0o755); err != nil {
		return err
	}
	tare := b.engines[0]
	for _, task := range []struct{ name, title, mark string }{
		{"cpu", "cpu: SHA-256", "within 1 %"}, {"memory", "memory: copies", "within 1 %"},
		{"file", "file I/O on a volume", "within 1 %"}, {"syscalls", "system calls, default profile", "≥ 0.97 of the host's rate"},
	} {
		times := map[string][]float64{}
		for r := range 2*max(b.rounds, 8) + 1 {
			for _, where := range []string{"tare", "host"} {
				var out string
				if where == "host" {
					data, runErr := exec.Command(self, "-task", task.name, "-work", volume).Output()
					out, err = strings.TrimSpace(string(data)), runErr
				} else {
					out, err = tare.output("run", "--rm", "--network", "none", "-v", self+":/task:ro", "-v", volume+":/volume", "small", "/task", "-task", task.name, "-work", "/volume")
				}
				if err != nil {
					return fmt.Errorf("%s in %s: %w", task.name, where, err)
				}
				ms, err := strconv.ParseFloat(out, 64)
				if err != nil {
					return err
				}
				if r > 0 {
					times[where] = append(times[where], ms)
				}
			}
		}
		b.recordIn(1, task.title, "ms", task.mark, times)
	}
	return nil
}
