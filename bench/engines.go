package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// engine is one program under measure: its command line with what selects the engine.
type engine struct {
	name, version string
	command       []string
	env           []string
	missing       map[string]bool // measures it does not take part in
	pulls         []string        // flags of its pull for a registry without TLS
	kills         []string        // flags of its rm -f to kill at once, as the others do unasked
}

func (e *engine) cmd(args ...string) *exec.Cmd {
	c := exec.Command(e.command[0], append(e.command[1:len(e.command):len(e.command)], args...)...)
	c.Env = append(os.Environ(), e.env...)
	return c
}

// do runs a command of the engine; its output is part of the error.
func (e *engine) do(args ...string) error { _, err := e.output(args...); return err }

func (e *engine) output(args ...string) (string, error) {
	var out, errs bytes.Buffer
	c := e.cmd(args...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s%s", e.name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// daemon starts a program in the background and ends it with the bench.
func (b *bench) daemon(log string, ready func() bool, name string, args ...string) error {
	f, err := os.Create(filepath.Join(b.work, log))
	if err != nil {
		return err
	}
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = f, f
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return err
	}
	b.undo = append(b.undo, func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
		f.Close()
	})
	for end := time.Now().Add(30 * time.Second); !ready(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			data, _ := os.ReadFile(f.Name())
			return fmt.Errorf("%s does not answer: %s", name, data)
		}
	}
	return nil
}

func answers(network, addr string) func() bool {
	return func() bool {
		c, err := net.Dial(network, addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
}

// registryAddr is free: the bench has a network of its own.
const registryAddr = "127.0.0.1:5731"

// start brings up the registry and the three engines, and the same small image in each.
func (b *bench) start() error {
	// The default sockets, so that the clients are called as people call them; /run is the bench's own.
	sock := func(n string) string {
		return map[string]string{"tared": "/run/tare/tared.sock", "dockerd": "/run/docker.sock"}[n]
	}
	for _, v := range []string{"TARE_HOST", "DOCKER_HOST", "DOCKER_CONTEXT"} {
		os.Unsetenv(v)
	}
	if err := os.MkdirAll(filepath.Dir(sock("tared")), 0o755); err != nil {
		return err
	}
	dir := func(n string) string { return filepath.Join(b.work, n) }
	if err := b.daemon("registry.log", answers("tcp", registryAddr), filepath.Join(b.bin, "tare-registry"), "--root", dir("registry"), "--addr", registryAddr, "--quiet"); err != nil {
		return err
	}
	if err := b.daemon("tared.log", answers("unix", sock("tared")), filepath.Join(b.bin, "tared"), "--data-root", dir("tare"), "--exec-root", dir("tare.run"), "--host", "unix://"+sock("tared")); err != nil {
		return err
	}
	tare := &engine{name: "tare", command: []string{filepath.Join(b.bin, "tare")}, env: []string{"TARE_NO_AUTOSTART=1"}, missing: map[string]bool{}}
	if err := os.MkdirAll(dir("docker"), 0o755); err != nil {
		return err
	}
	if err := b.daemon("dockerd.log", answers("unix", sock("dockerd")), "/usr/sbin/dockerd", "--data-root", dir("docker/data"), "--exec-root", dir("docker/exec"),
		"-H", "unix://"+sock("dockerd"), "--pidfile", dir("docker/pid"), "--bip", "172.31.231.1/24", "--storage-driver", "overlay2", "--insecure-registry", registryAddr); err != nil {
		return err
	}
	docker := &engine{name: "docker", command: []string{"/usr/bin/docker"}, env: []string{"DOCKER_BUILDKIT=1"}, missing: map[string]bool{}}
	conf := filepath.Join(b.work, "containers.conf")
	if err := os.WriteFile(conf, []byte("[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=1024:1024\"]\n"), 0o644); err != nil {
		return err
	}
	// crun refuses a host with cgroup v1 controllers and a v2 tree; runc takes it.
	podman := &engine{name: "podman", command: []string{"/usr/bin/podman", "--root", dir("podman"), "--runroot", dir("podman.run"), "--tmpdir", dir("podman.tmp"),
		"--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "file"},
		env: []string{"CONTAINERS_CONF=" + conf}, missing: map[string]bool{}, pulls: []string{"--tls-verify=false"}, kills: []string{"--time", "0"}}
	b.undo = append(b.undo, func() { _ = podman.do("system", "reset", "--force") })
	b.engines = []*engine{tare, docker, podman}
	if err := b.noteInstance(dir("tared.log")); err != nil {
		return err
	}
	for _, e := range b.engines {
		v, err := e.output("--version")
		if err != nil {
			return err
		}
		e.version = strings.TrimSuffix(strings.Fields(v)[2], ",")
		if err := b.smallImage(e); err != nil {
			return err
		}
		b.undo = append(b.undo, func() {
			if ids, err := e.output("ps", "-aq"); err == nil && ids != "" {
				_ = e.do(append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
			}
		})
	}
	return nil
}

// noteInstance tells the script which cgroups are ours.
func (b *bench) noteInstance(logFile string) error {
	var rest string
	for end := time.Now().Add(30 * time.Second); rest == ""; time.Sleep(10 * time.Millisecond) { // it listens before it tells
		data, err := os.ReadFile(logFile)
		if err != nil {
			return err
		}
		_, rest, _ = strings.Cut(string(data), " instance=")
		if rest = strings.TrimSpace(rest); rest == "" && time.Now().After(end) {
			return fmt.Errorf("tared does not tell its instance: %s", data)
		}
	}
	return os.WriteFile(filepath.Join(b.work, "instance"), []byte(strings.Fields(rest)[0]), 0o644)
}

// smallImage builds an image of busybox alone.
func (b *bench) smallImage(e *engine) error {
	ctx := filepath.Join(b.work, "small")
	if err := os.MkdirAll(ctx, 0o755); err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return errors.New("busybox is missing (Debian: busybox-static)")
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(ctx, "busybox"), data, 0o755); err != nil {
		return err
	}
	dockerfile := "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n"
	if err := os.WriteFile(filepath.Join(ctx, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		return err
	}
	return e.do("build", "-q", "-t", "small", ctx)
}
