package defaults

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files")

func TestGolden(t *testing.T) {
	got, err := json.MarshalIndent(Spec(), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const file = "testdata/spec.json"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the default spec changed:\n%s", got)
	}
}

func TestFresh(t *testing.T) {
	a := Spec()
	a.Mounts[0].Options[0], a.Process.Capabilities.Bounding[0], *a.Linux.Resources.Devices[1].Major = "x", "x", 99
	Capabilities()[0] = "x"
	if b := Spec(); b.Mounts[0].Options[0] == "x" || b.Process.Capabilities.Bounding[0] == "x" || *b.Linux.Resources.Devices[1].Major == 99 {
		t.Error("a change of one copy shows in the next")
	}
	if c := Capabilities(); len(c) != 14 || !slices.IsSorted(c) {
		t.Error(c)
	}
}

// On a kernel of today the pure resolution gives what moby's gives.
func TestSeccomp(t *testing.T) {
	for _, caps := range [][]string{nil, Capabilities(), {"CAP_SYS_ADMIN"}, {"CAP_SYS_PTRACE", "CAP_BPF", "CAP_SYS_TIME"}} {
		got, err := Seccomp(caps)
		if err != nil {
			t.Fatal(err)
		}
		want, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v: differs from moby's", caps)
		}
	}
}
