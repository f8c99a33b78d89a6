package container

import (
	"net/netip"
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestPortsAreJoined(t *testing.T) {
	all, six := netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::")
	got := Ports([]container.PortSummary{
		{IP: all, PrivatePort: 81, PublicPort: 8081, Type: "tcp"}, {IP: all, PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
		{IP: six, PrivatePort: 80, PublicPort: 8080, Type: "tcp"}, {PrivatePort: 443, Type: "tcp"}, {PrivatePort: 53, Type: "udp"}, {PrivatePort: 54, Type: "udp"},
	})
	if want := "53-54/udp, 0.0.0.0:8080-8081->80-81/tcp, [::]:8080->80/tcp, 443/tcp"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
