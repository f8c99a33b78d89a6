package network

import (
	"testing"

	"tare/internal/network/dns"
	"tare/internal/network/firewall"
)

// BenchmarkRedirect is what a container's own port 53 costs its start.
func BenchmarkRedirect(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		x := newBox(b, "x")
		err := x.in(func() error {
			b.StartTimer()
			defer b.StopTimer()
			return firewall.Redirect(dns.Addr, dns.Port, 40000)
		})
		if err != nil {
			b.Fatal(err)
		}
		x.kill()
		b.StartTimer()
	}
}
