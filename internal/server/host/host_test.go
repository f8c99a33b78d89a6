package host

import (
	"os"
	"path/filepath"
	"testing"

	"tare/internal/server/config"
)

func TestInfo(t *testing.T) {
	cfg := config.Default()
	cfg.DataRoot = t.TempDir()
	cfg.Labels = []string{"a=b"}
	f := Facts{ID: "id", Version: "1", MinAPI: "1.24", MaxAPI: "1.56", Config: cfg, Runtime: "/bin/tare-run"}
	i := f.Info()
	if i.NCPU < 1 || i.MemTotal < 1<<20 || i.KernelVersion == "" || i.OperatingSystem == "" || i.Architecture == "" || i.NFd < 1 {
		t.Errorf("facts of the machine are missing: %+v", i)
	}
	if i.DriverStatus[0][1] == "" || i.DockerRootDir != cfg.DataRoot || i.Labels[0] != "a=b" || i.CgroupVersion != "1" && i.CgroupVersion != "2" {
		t.Errorf("facts of the engine are missing: %+v", i)
	}
	if _, ok := i.Runtimes[i.DefaultRuntime]; !ok {
		t.Errorf("the default runtime %s is not among %v", i.DefaultRuntime, i.Runtimes)
	}
	if v := f.Engine(); v.APIVersion != "1.56" || v.Components[0].Details["ApiVersion"] != "1.56" {
		t.Errorf("version %+v", v)
	}
}

func TestOSRelease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "os-release")
	os.WriteFile(path, []byte("# comment\nPRETTY_NAME=\"Some \\\"OS\\\" 1\"\nVERSION_ID='1.2'\nBROKEN\nID=some\n"), 0o644)
	got := osRelease(path)
	if got["PRETTY_NAME"] != `Some "OS" 1` || got["VERSION_ID"] != "1.2" || got["ID"] != "some" {
		t.Errorf("%q", got)
	}
	if got := osRelease(path + ".missing"); got["PRETTY_NAME"] != "Linux" {
		t.Errorf("without a file: %q", got)
	}
}
