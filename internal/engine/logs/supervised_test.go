package logs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/ids"
	"tare/internal/engine/logs"
	"tare/internal/runtime"
	"tare/internal/runtime/client"
	"tare/internal/runtime/launch"
	"tare/internal/runtime/supervise"
)

func TestMain(m *testing.M) {
	launch.StageMain()
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		os.Exit(supervise.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// TestFollowContainers follows logs that a real supervisor writes, rotates and, half of them, compresses; then it reads them again.
func TestFollowContainers(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "tare-logs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	instance := "logs-" + ids.New()[:12]
	c, err := client.Ensure(ctx, client.Options{Program: program, ExecRoot: filepath.Join(dir, "exec"), Instance: instance, LogFile: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		all, _ := c.List(ctx)
		for _, st := range all {
			if st.Status == runtime.Running {
				_ = c.Signal(ctx, runtime.Ref{Container: st.ID}, 9)
			}
			for c.Delete(ctx, st.ID) != nil && ctx.Err() == nil {
				time.Sleep(time.Millisecond) // until it has ended
			}
		}
		if err := c.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		c.Close()
	})
	const boxes, lines = 8, 400
	var wg sync.WaitGroup
	for i := range boxes {
		id := ids.New()
		log := runtime.Log{Driver: "json-file", MaxSize: 8000, MaxFiles: 50, Compress: i%2 == 1}
		path := create(t, ctx, c, dir, instance, id, log, fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); [ $((i%%40)) = 0 ] && sleep 0.02; done", lines))
		wg.Go(func() {
			next := 0
			err := logs.Read(ctx, path, logs.Options{
				Stdout: true, Stderr: true, Tail: -1, Follow: true,
				Running: func() bool {
					st, err := c.State(ctx, id)
					return err == nil && st.Status != runtime.Stopped
				},
			}, func(e logs.Entry) error {
				if want := fmt.Sprintf("line %d\n", next); string(e.Line) != want || e.Stream != "stdout" {
					return fmt.Errorf("got %q on %s, want %q", e.Line, e.Stream, want)
				}
				next++
				return nil
			})
			if err != nil || next != lines {
				t.Errorf("%d of %d, %v", next, lines, err)
			}
			for log.Compress { // while the last ones may still be compressed
				gz, _ := filepath.Glob(path + ".*.gz")
				if rotated, _ := filepath.Glob(path + ".[0-9]*"); len(gz) > 0 && len(gz) == len(rotated) || ctx.Err() != nil {
					break
				}
				time.Sleep(time.Millisecond)
			}
			next = 0
			err = logs.Read(ctx, path, logs.Options{Stdout: true, Tail: -1}, func(e logs.Entry) error {
				if want := fmt.Sprintf("line %d\n", next); string(e.Line) != want {
					return fmt.Errorf("got %q, want %q", e.Line, want)
				}
				next++
				return nil
			})
			if err != nil || next != lines {
				t.Errorf("again: %d of %d, %v", next, lines, err)
			}
			next = lines - 150 // over several files
			err = logs.Read(ctx, path, logs.Options{Stdout: true, Tail: 150}, func(e logs.Entry) error {
				if want := fmt.Sprintf("line %d\n", next); string(e.Line) != want {
					return fmt.Errorf("got %q, want %q", e.Line, want)
				}
				next++
				return nil
			})
			if err != nil || next != lines {
				t.Errorf("the last 150: up to %d, %v", next, err)
			}
		})
		if err := c.Start(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

func create(t *testing.T, ctx context.Context, c *client.Client, dir, instance, id string, log runtime.Log, script string) string {
	t.Helper()
	bundle := filepath.Join(dir, id)
	if err := os.Mkdir(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "/", Readonly: true},
		Process: &specs.Process{Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin:/usr/bin"}},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			CgroupsPath: "/tare/" + instance + "/" + id,
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	log.Path = filepath.Join(bundle, id+"-json.log")
	_, err = c.Create(ctx, runtime.Create{ID: id, Bundle: bundle, Stdio: runtime.Stdio{Log: log}})
	if err != nil {
		t.Fatal(err)
	}
	return log.Path
}
