package engine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// TestVolumes: copy-up, nocopy, read-only, subpaths, volumes-from, what is in use, what goes with its container.
func TestVolumes(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("run", "--name", "seed", image, "sh", "-c", "mkdir /data/sub; write /data/seed sown; write /data/sub/deep down")
	e.Docker("commit", "seed", "seeded")
	expect(t, e, 0, "sown", "run", "--rm", "-v", "named:/data", "seeded", "cat", "/data/seed")
	expect(t, e, 1, "no such file", "run", "--rm", "-v", "empty:/data:nocopy", "seeded", "cat", "/data/seed")
	expect(t, e, 1, "read-only file system", "run", "--rm", "-v", "named:/data:ro", "seeded", "write", "/data/new", "x")
	expect(t, e, 0, "sown", "run", "--rm", "-v", "named:/data", image, "cat", "/data/seed")

	sub := "type=volume,src=named,dst=/x,volume-subpath="
	expect(t, e, 0, "down", "run", "--rm", "--mount", sub+"sub", image, "cat", "/x/deep")
	expect(t, e, 0, "sown", "run", "--rm", "--mount", sub+"seed", image, "cat", "/x")
	expect(t, e, 1, "read-only file system", "run", "--rm", "--mount", sub+"sub,readonly", image, "write", "/x/new", "y")
	expect(t, e, 125, "subpath must be a relative path within the volume", "run", "--rm", "--mount", sub+"../sub", image, "true")
	expect(t, e, 125, "bind source path does not exist: "+e.DataRoot+"/volumes/named/_data/nope", "run", "--rm", "--mount", sub+"nope", image, "true")
	e.Docker("create", "--name", "part", "--mount", sub+"sub", image, "cat", "/x/new")
	local := filepath.Join(t.TempDir(), "new")
	os.WriteFile(local, []byte("fresh"), 0o644)
	e.Docker("cp", local, "part:/x/new")
	expect(t, e, 0, "fresh", "start", "-a", "part")
	if got, err := os.ReadFile(filepath.Join(e.DataRoot, "volumes", "named", "_data", "sub", "new")); string(got) != "fresh" {
		t.Errorf("copied elsewhere: %q %v", got, err)
	}
	e.Docker("rm", "part")
	// A container can write links into its volume; they lead nowhere but into the volume.
	data := filepath.Join(e.DataRoot, "volumes", "named", "_data")
	os.Symlink("/etc", filepath.Join(data, "out"))
	os.Symlink("../../../../../etc", filepath.Join(data, "up"))
	for _, link := range []string{"out", "up", "out/passwd"} {
		expect(t, e, 125, "bind source path does not exist", "run", "--rm", "--mount", sub+link, image, "true")
	}

	e.Docker("create", "--name", "donor", "-v", "named:/data", "-v", "/anonymous", image)
	expect(t, e, 0, "sown", "run", "--rm", "--volumes-from", "donor", image, "cat", "/data/seed")
	expect(t, e, 1, "read-only file system", "run", "--rm", "--volumes-from", "donor:ro", image, "write", "/data/new", "z")
	id := e.Docker("inspect", "-f", "{{.Id}}", "donor")
	expect(t, e, 1, "remove named: volume is in use - ["+id+"]", "volume", "rm", "named")
	expect(t, e, 1, "remove named: volume is in use - ["+id+"]", "volume", "rm", "-f", "named")
	e.Restart(true)
	expect(t, e, 1, "volume is in use", "volume", "rm", "named")
	before := len(strings.Fields(e.Docker("volume", "ls", "-q")))
	e.Docker("rm", "donor") // without -v the anonymous one stays
	if n := len(strings.Fields(e.Docker("volume", "ls", "-q"))); n != before {
		t.Errorf("%d volumes, there were %d", n, before)
	}
	e.Docker("volume", "prune", "-f")
	for _, flags := range [][]string{{"run", "--rm", "-v", "/a", image, "true"}, {"create", "--name", "made", "-v", "/a", image}} {
		e.Docker(flags...)
	}
	e.Docker("rm", "-v", "made")
	e.Until("only the named ones", func() bool { return e.Docker("volume", "ls", "-q") == "empty\nnamed" })
	e.Docker("volume", "rm", "named", "empty")
}

// TestLogOptions: the driver local and the options of json-file.
func TestLogOptions(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("run", "--name", "local", "--log-driver", "local", "--log-opt", "max-size=4k", "--log-opt", "max-file=2", image, "tick", "500", "0")
	lines := strings.Fields(e.Docker("logs", "local"))
	if len(lines) < 10 || len(lines) >= 500 || lines[len(lines)-1] != "499" && !strings.Contains(lines[len(lines)-1], "499") && !strings.Contains(lines[len(lines)-1], "500") {
		t.Errorf("%d words: %v", len(lines), lines)
	}
	files, _ := filepath.Glob(filepath.Join(e.DataRoot, "containers", "*", "container.log*"))
	if len(files) != 2 {
		t.Errorf("files: %q", files)
	}
	e.Docker("run", "--name", "told", "--log-opt", "labels=team", "--log-opt", "env=LEVEL", "--log-opt", "tag={{.Name}}", "-l", "team=x", "-e", "LEVEL=9", image, "echo", "hi")
	if out := e.Docker("logs", "--details", "told"); out != "LEVEL=9,tag=told,team=x hi" {
		t.Errorf("details: %q", out)
	}
	for opt, words := range map[string]string{
		"max-file=0": "max-file cannot be less than 1", "max-size=much": "invalid max-size", "mode=odd": "logging mode not supported: odd", "nope=1": "unknown log opt 'nope'",
	} {
		expect(t, e, 125, words, "run", "--rm", "--log-opt", opt, image, "true")
	}
	expect(t, e, 125, "unknown log opt 'tag' for local log driver", "run", "--rm", "--log-driver", "local", "--log-opt", "tag=x", image, "true")
}

// TestCgroupParent: the engine's own group goes with the last container; another parent is taken as given.
func TestCgroupParent(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	parent := "/tare-test-" + e.Host.Instance
	t.Cleanup(func() {
		for _, pattern := range []string{"/sys/fs/cgroup" + parent, "/sys/fs/cgroup/*" + parent} {
			found, _ := filepath.Glob(pattern)
			for _, d := range found {
				os.Remove(d)
			}
		}
	})
	expect(t, e, 0, parent+"/", "run", "--rm", "--cgroup-parent", parent, "--cgroupns", "host", image, "cat", "/proc/self/cgroup")
	expect(t, e, 0, "/tare/"+e.Host.Instance+"/", "run", "--rm", "--cgroupns", "host", image, "cat", "/proc/self/cgroup")
	e.Until("the end of the engine's group", func() bool {
		var left []string
		for _, pattern := range []string{"/sys/fs/cgroup/tare/", "/sys/fs/cgroup/*/tare/"} {
			found, _ := filepath.Glob(pattern + e.Host.Instance)
			left = append(left, found...)
		}
		return len(left) == 0
	})
	expect(t, e, 0, "again", "run", "--rm", image, "echo", "again")
}
