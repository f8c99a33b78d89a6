package cgroup

import (
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
)

func (w *writer) blockIO(b *specs.LinuxBlockIO) {
	if b == nil || w.err != nil {
		return
	}
	if _, v2 := w.g.on("blkio"); v2 || w.g.host.inUnified("io") {
		w.ioV2(b)
	} else {
		w.blkio(b)
	}
}

// blkio writes v1's files. Weights are of CFQ's successor BFQ, whose file has another name in most kernels.
func (w *writer) blkio(b *specs.LinuxBlockIO) {
	weight := func(plain, bfq, value string) {
		if !w.has("blkio", plain) && w.has("blkio", bfq) {
			plain = bfq
		}
		w.put("blkio", plain, value)
	}
	if b.Weight != nil && *b.Weight != 0 {
		weight("blkio.weight", "blkio.bfq.weight", strconv.Itoa(int(*b.Weight)))
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		w.put("blkio", "blkio.leaf_weight", strconv.Itoa(int(*b.LeafWeight)))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			weight("blkio.weight_device", "blkio.bfq.weight_device", number(d.LinuxBlockIODevice)+" "+strconv.Itoa(int(*d.Weight)))
		}
		if d.LeafWeight != nil {
			w.put("blkio", "blkio.leaf_weight_device", number(d.LinuxBlockIODevice)+" "+strconv.Itoa(int(*d.LeafWeight)))
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			w.put("blkio", t.v1, number(d.LinuxBlockIODevice)+" "+strconv.FormatUint(d.Rate, 10))
		}
	}
}

type throttle struct {
	v1, v2  string
	devices []specs.LinuxThrottleDevice
}

func throttles(b *specs.LinuxBlockIO) []throttle {
	return []throttle{
		{"blkio.throttle.read_bps_device", "rbps", b.ThrottleReadBpsDevice},
		{"blkio.throttle.write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"blkio.throttle.read_iops_device", "riops", b.ThrottleReadIOPSDevice},
		{"blkio.throttle.write_iops_device", "wiops", b.ThrottleWriteIOPSDevice},
	}
}

func number(d specs.LinuxBlockIODevice) string {
	return strconv.FormatInt(d.Major, 10) + ":" + strconv.FormatInt(d.Minor, 10)
}

// ioV2 gives weights to BFQ, whose scale is v1's, where that is loaded, else to the cost model.
func (w *writer) ioV2(b *specs.LinuxBlockIO) {
	leaf := b.LeafWeight != nil && *b.LeafWeight != 0
	for _, d := range b.WeightDevice {
		leaf = leaf || d.LeafWeight != nil && *d.LeafWeight != 0
	}
	if leaf {
		w.err = fault.Invalid("a block I/O leaf weight needs cgroup v1; this machine has v2")
		return
	}
	file, scale := "io.weight", ioWeight
	if w.has("io", "io.bfq.weight") {
		file, scale = "io.bfq.weight", func(n uint16) uint64 { return uint64(n) }
	}
	if b.Weight != nil && *b.Weight != 0 {
		w.put("io", file, strconv.FormatUint(scale(*b.Weight), 10))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			w.put("io", file, number(d.LinuxBlockIODevice)+" "+strconv.FormatUint(scale(*d.Weight), 10))
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			rate := "max" // v1's 0: none
			if d.Rate != 0 {
				rate = strconv.FormatUint(d.Rate, 10)
			}
			w.put("io", "io.max", number(d.LinuxBlockIODevice)+" "+t.v2+"="+rate)
		}
	}
}

// ioWeight maps v1's 10…1000 onto v2's 1…10000.
func ioWeight(n uint16) uint64 {
	n = min(max(n, 10), 1000)
	return 1 + (uint64(n)-10)*9999/990
}
