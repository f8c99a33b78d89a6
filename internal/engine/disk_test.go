package engine_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"tare/internal/base/files"
	"tare/internal/test/harness"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestDisk: after builds, runs, volumes and random operations `system df` agrees with du, and prune leaves next to nothing.
func TestDisk(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "blob"), make([]byte, 3<<20), 0o644)
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	sparse.Truncate(64 << 20)
	sparse.Close()
	noise := make([]byte, 8<<20)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	os.WriteFile(filepath.Join(dir, "noise"), noise, 0o644)
	os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+image+"\nARG N\nCOPY blob /blob\nRUN write /n $N\nCOPY noise sparse /d/\n"), 0o644)
	for i := range 100 {
		n := itoa(i)
		switch rand.IntN(8) {
		case 0:
			e.Docker("build", "-q", "--build-arg", "N="+n, "-t", "built"+itoa(i%3), dir)
		case 1:
			e.Docker("run", "--name", "c"+n, "-v", "vol"+itoa(i%4)+":/v", image, "write", "/v/"+n, "x")
		case 2:
			e.Docker("run", "--rm", "-v", "/anonymous", image, "write", "/anonymous/f", "x")
		case 3:
			e.Docker("create", "-v", "/also", image)
		case 4:
			e.Docker("run", "-d", image, "sleep", "1000")
		case 5:
			if ids := e.Docker("ps", "-aq", "-n", "1"); ids != "" {
				e.Docker("rm", "-f", ids)
			}
		case 6:
			e.Try(nil, "rmi", "-f", "built"+itoa(i%3))
		case 7:
			if i%2 == 0 {
				e.Docker("builder", "prune", "-af")
			} else {
				e.Docker("image", "prune", "-f")
			}
		}
	}
	e.Docker("build", "-q", "--build-arg", "N=last", "-t", "last", dir)
	e.Docker("tag", "last", "again")
	e.Docker("run", "-d", "--name", "fills", "-v", "filled:/v", image, "sleep", "1000")
	e.Docker("cp", filepath.Join(dir, "noise"), "fills:/v/")
	e.Docker("cp", filepath.Join(dir, "blob"), "fills:/own")
	e.Until("removals in the background", func() bool {
		left, _ := filepath.Glob(filepath.Join(e.DataRoot, "containers", files.TempPrefix+"*"))
		return len(left) == 0
	})
	compare(t, e)
	for _, id := range strings.Fields(e.Docker("ps", "-q")) {
		e.Docker("rm", "-f", id)
	}
	out := e.Docker("system", "prune", "-af", "--volumes")
	// Docker's system prune spares named volumes.
	e.Docker("volume", "prune", "-af")
	for _, what := range []string{"ps -aq", "images -aq", "volume ls -q"} {
		if left := e.Docker(strings.Fields(what)...); left != "" {
			t.Errorf("%s: %s\n%s", what, left, out)
		}
	}
	e.Until("the emptiness", func() bool {
		n, err := files.Usage(e.DataRoot)
		return err == nil && n <= 5<<20
	})
	n, _ := files.Usage(e.DataRoot)
	t.Logf("%d bytes are left", n)
	// Nothing was kept back: the same image comes whole again.
	if out := e.Docker("pull", e.Registry()+"/tools"); strings.Contains(out, "Already exists") {
		t.Errorf("a layer was left:\n%s", out)
	}
}

func compare(t *testing.T, e *harness.Engine) {
	t.Helper()
	u, err := e.Client.DiskUsage(t.Context(), client.DiskUsageOptions{Containers: true, Images: true, BuildCache: true, Volumes: true})
	if err != nil {
		t.Fatal(err)
	}
	told := u.Containers.TotalSize + u.Images.TotalSize + u.BuildCache.TotalSize + u.Volumes.TotalSize
	du, err := files.Usage(e.DataRoot)
	if err != nil {
		t.Fatal(err)
	}
	note := fmt.Sprintf("df tells of %d bytes (containers %d, images %d, cache %d, volumes %d), du of %d", told, u.Containers.TotalSize, u.Images.TotalSize, u.BuildCache.TotalSize, u.Volumes.TotalSize, du)
	if diff := du - told; diff > du/100 || diff < -du/100 {
		t.Error(note)
	}
	t.Log(note)
}
