package seccomp

import (
	"hash/maphash"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// cache holds the filters of the profiles seen last; nearly every container of an engine has the same one.
var cache = struct {
	seed maphash.Seed
	mu   sync.Mutex
	hit  map[uint64]*Filter
}{seed: maphash.MakeSeed(), hit: map[uint64]*Filter{}}

const cacheSize = 64

// Cached is Compile, remembered by the profile's content.
func Cached(profile *specs.LinuxSeccomp) (*Filter, error) {
	key := fingerprint(profile)
	cache.mu.Lock()
	f, ok := cache.hit[key]
	cache.mu.Unlock()
	if ok {
		return f, nil
	}
	f, err := Compile(profile)
	if err != nil {
		return nil, err
	}
	cache.mu.Lock()
	defer cache.mu.Unlock()
	if len(cache.hit) >= cacheSize {
		clear(cache.hit)
	}
	cache.hit[key] = f
	return f, nil
}

// fingerprint covers every field that Compile reads. The seed is the process's own, so collisions can't be made up.
func fingerprint(p *specs.LinuxSeccomp) uint64 {
	var h maphash.Hash
	h.SetSeed(cache.seed)
	str := func(s string) {
		maphash.WriteComparable(&h, len(s))
		h.WriteString(s)
	}
	num := func(n *uint) {
		maphash.WriteComparable(&h, n == nil)
		if n != nil {
			maphash.WriteComparable(&h, *n)
		}
	}
	str(string(p.DefaultAction))
	num(p.DefaultErrnoRet)
	str(p.ListenerPath)
	str(p.ListenerMetadata)
	maphash.WriteComparable(&h, len(p.Architectures))
	for _, a := range p.Architectures {
		str(string(a))
	}
	maphash.WriteComparable(&h, len(p.Flags))
	for _, f := range p.Flags {
		str(string(f))
	}
	for i := range p.Syscalls {
		s := &p.Syscalls[i]
		maphash.WriteComparable(&h, len(s.Names))
		for _, n := range s.Names {
			str(n)
		}
		str(string(s.Action))
		num(s.ErrnoRet)
		maphash.WriteComparable(&h, len(s.Args))
		for _, a := range s.Args {
			maphash.WriteComparable(&h, a)
		}
	}
	return h.Sum64()
}
