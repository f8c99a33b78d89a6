package defaults

import (
	"slices"
	"testing"
	"testing/fstest"
)

func TestThrottles(t *testing.T) {
	const cpu = "devices/system/cpu/"
	sys := fstest.MapFS{}
	for _, f := range []string{"cpu10/thermal_throttle/count", "cpu2/thermal_throttle/count", "cpu0/thermal_throttle/count", "cpu1/topology/id", "cpufreq/thermal_throttle/x"} {
		sys[cpu+f] = &fstest.MapFile{}
	}
	want := []string{"/sys/" + cpu + "cpu0/thermal_throttle", "/sys/" + cpu + "cpu2/thermal_throttle", "/sys/" + cpu + "cpu10/thermal_throttle"}
	if got := Throttles(sys); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := Throttles(fstest.MapFS{}); got != nil {
		t.Error(got)
	}
}
