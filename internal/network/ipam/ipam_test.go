package ipam

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
)

func TestAThousandNetworksGetTheirOwnSubnet(t *testing.T) {
	host := netip.MustParsePrefix("172.17.4.0/24")
	taken := []netip.Prefix{host}
	for range 1000 {
		p, err := Choose(DefaultPools(), taken)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(taken, p.Overlaps) {
			t.Fatalf("%v is taken", p)
		}
		taken = append(taken, p)
	}
	if got := taken[1]; got != netip.MustParsePrefix("172.18.0.0/16") {
		t.Errorf("first subnet %v, want the first that the host leaves free, 172.18.0.0/16", got)
	}
}

func TestChooseSaysWhenPoolsAreUsedUp(t *testing.T) {
	pools := []Pool{{netip.MustParsePrefix("10.1.0.0/30"), 31}}
	var taken []netip.Prefix
	for range 2 {
		p, err := Choose(pools, taken)
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, p)
	}
	if _, err := Choose(pools, taken); !errdefs.IsInvalidArgument(err) {
		t.Errorf("third subnet of two: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	s := NewSubnet(netip.MustParsePrefix("10.0.0.0/29"), netip.Prefix{})
	gw := netip.MustParseAddr("10.0.0.1")
	if err := s.Take(gw); err != nil {
		t.Fatal(err)
	}
	if err := s.Take(gw); err == nil || err.Error() != "Address already in use" || !errdefs.IsPermissionDenied(err) {
		t.Errorf("second Take: %v", err)
	}
	if err := s.Take(netip.MustParseAddr("10.0.1.1")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("foreign address: %v", err)
	}
	var got []netip.Addr
	for {
		a, err := s.Next()
		if err != nil {
			break
		}
		got = append(got, a)
	}
	if len(got) != 5 || got[0].String() != "10.0.0.2" || got[4].String() != "10.0.0.6" {
		t.Errorf("addresses %v", got)
	}
	s.Release(got[2])
	if a, err := s.Next(); err != nil || a != got[2] {
		t.Errorf("after release: %v %v", a, err)
	}
}

func TestRange(t *testing.T) {
	s := NewSubnet(netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("10.0.5.0/30"))
	var got []string
	for a, err := s.Next(); err == nil; a, err = s.Next() {
		got = append(got, a.String())
	}
	if want := []string{"10.0.5.0", "10.0.5.1", "10.0.5.2", "10.0.5.3"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
