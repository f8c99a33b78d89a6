// Package ipam chooses subnets for networks and addresses for endpoints. It only
// computes: what the host already uses is handed in.
package ipam

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"tare/internal/base/fault"
)

// Pool is a range from which subnets of one size are cut.
type Pool struct {
	Base netip.Prefix
	Size int // prefix length of the subnets
}

// DefaultPools are Docker's, and after them 4,096 small subnets, so that a host holds thousands of networks.
func DefaultPools() []Pool {
	var out []Pool
	for i := 17; i < 32; i++ {
		out = append(out, Pool{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i), 0, 0}), 16), 16})
	}
	return append(out,
		Pool{netip.MustParsePrefix("192.168.0.0/16"), 20},
		Pool{netip.MustParsePrefix("10.192.0.0/12"), 24})
}

// Choose returns the first subnet of the pools that overlaps none of taken.
func Choose(pools []Pool, taken []netip.Prefix) (netip.Prefix, error) {
	spans := merge(taken)
	for _, p := range pools {
		first, last := span(p.Base)
		step := uint64(1) << (32 - p.Size)
		for a := first; a+step-1 <= last; {
			i, _ := slices.BinarySearchFunc(spans, a, func(s [2]uint64, a uint64) int {
				if s[1] < a {
					return -1
				}
				return 1
			})
			if i == len(spans) || spans[i][0] > a+step-1 {
				return netip.PrefixFrom(fromNumber(a), p.Size), nil
			}
			a = (spans[i][1]/step + 1) * step // behind what is in the way
		}
	}
	return netip.Prefix{}, fault.Invalid("all predefined address pools have been fully subnetted")
}

// ErrOverlap says that a wanted subnet is in use.
func ErrOverlap() error {
	return fault.Forbidden("invalid pool request: Pool overlaps with other one on this address space")
}

// Subnet hands out the addresses of one network. Not safe for concurrent use.
type Subnet struct {
	prefix      netip.Prefix
	first, last uint64 // of the range for dynamic addresses
	used        map[netip.Addr]bool
	next        uint64 // no free address below it
}

// NewSubnet makes a subnet whose dynamic addresses come from within (zero: all of it). IPv4's network and broadcast
// addresses are never given.
func NewSubnet(prefix, within netip.Prefix) *Subnet {
	s := &Subnet{prefix: prefix.Masked(), used: map[netip.Addr]bool{}}
	if !within.IsValid() {
		within = prefix
	}
	s.first, s.last = span(within)
	low, high := span(prefix)
	if prefix.Bits() < 31 {
		low, high = low+1, high-1
	}
	s.first, s.last = max(s.first, low), min(s.last, high)
	s.next = s.first
	return s
}

// Prefix is the whole subnet.
func (s *Subnet) Prefix() netip.Prefix { return s.prefix }

// Take reserves a given address.
func (s *Subnet) Take(a netip.Addr) error {
	if !s.prefix.Contains(a) {
		return fault.Invalid("invalid address %s: It does not belong to any of this network's subnets", a)
	}
	low, high := span(s.prefix)
	if n := number(a); s.prefix.Bits() < 31 && (n == low || n == high) {
		return fault.Invalid("invalid address %s: it is the network's or broadcast address of %s", a, s.prefix)
	}
	if s.used[a] {
		return fault.Forbidden("Address already in use")
	}
	s.used[a] = true
	return nil
}

// Next reserves the lowest free address.
func (s *Subnet) Next() (netip.Addr, error) {
	for ; s.next <= s.last; s.next++ {
		a := fromNumber(s.next)
		if !s.used[a] {
			s.used[a] = true
			s.next++
			return a, nil
		}
	}
	return netip.Addr{}, fault.Unavailable("no available IPv4 addresses on this network's address pools")
}

// Release gives an address back.
func (s *Subnet) Release(a netip.Addr) {
	if !s.used[a] {
		return
	}
	delete(s.used, a)
	if n := number(a); n >= s.first && n <= s.last {
		s.next = min(s.next, n)
	}
}

func number(a netip.Addr) uint64 {
	b := a.As4()
	return uint64(binary.BigEndian.Uint32(b[:]))
}

func fromNumber(n uint64) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b)
}

// span is the first and last address of a prefix.
func span(p netip.Prefix) (first, last uint64) {
	first = number(p.Masked().Addr())
	return first, first + 1<<(32-p.Bits()) - 1
}

// merge sorts prefixes and joins those that overlap.
func merge(ps []netip.Prefix) [][2]uint64 {
	var out [][2]uint64
	for _, p := range ps {
		if p.Addr().Is4() {
			a, b := span(p)
			out = append(out, [2]uint64{a, b})
		}
	}
	slices.SortFunc(out, func(x, y [2]uint64) int {
		if x[0] < y[0] {
			return -1
		}
		if x[0] > y[0] {
			return 1
		}
		return 0
	})
	merged := out[:0]
	for _, s := range out {
		if n := len(merged); n > 0 && s[0] <= merged[n-1][1] {
			merged[n-1][1] = max(merged[n-1][1], s[1])
			continue
		}
		merged = append(merged, s)
	}
	return merged
}
