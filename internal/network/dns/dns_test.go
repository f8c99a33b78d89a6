package dns

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

type table map[string][]netip.Addr

func (t table) Lookup(name string) ([]netip.Addr, bool) { a, ok := t[name]; return a, ok }
func (t table) Reverse(a netip.Addr) string {
	for n, as := range t {
		for _, x := range as {
			if x == a {
				return n + ".net"
			}
		}
	}
	return ""
}
func (t table) Upstreams() []netip.Addr { return nil }

func ask1(t *testing.T, v *Server, name string, kind dnsmessage.Type, network string) dnsmessage.Message {
	t.Helper()
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	raw, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(v.answer(raw, network)); err != nil {
		t.Fatal(err)
	}
	return m
}

func testServer() *Server {
	many := []netip.Addr{}
	for i := range 200 {
		many = append(many, netip.MustParseAddr(fmt.Sprintf("10.0.1.%d", i)))
	}
	return &Server{names: table{"web": {netip.MustParseAddr("10.0.0.2")}, "many": many}, ctx: context.Background()}
}

func TestAnswers(t *testing.T) {
	v := testServer()
	for _, c := range []struct {
		name    string
		kind    dnsmessage.Type
		network string
		rcode   dnsmessage.RCode
		answers int
		cut     bool
	}{
		{"web.", dnsmessage.TypeA, "udp", 0, 1, false},
		{"WEB.", dnsmessage.TypeA, "udp", 0, 1, false},
		{"web.", dnsmessage.TypeAAAA, "udp", 0, 0, false},
		{"many.", dnsmessage.TypeA, "udp", 0, 0, true},
		{"many.", dnsmessage.TypeA, "tcp", 0, 200, false},
		{"2.0.0.10.in-addr.arpa.", dnsmessage.TypePTR, "udp", 0, 1, false},
		{"else.", dnsmessage.TypeA, "udp", dnsmessage.RCodeServerFailure, 0, false},
	} {
		m := ask1(t, v, c.name, c.kind, c.network)
		if m.RCode != c.rcode || len(m.Answers) != c.answers || m.Truncated != c.cut || m.ID != 7 {
			t.Errorf("%s %v by %s: %v, %d answers, truncated %v", c.name, c.kind, c.network, m.RCode, len(m.Answers), m.Truncated)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	q := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("web."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	raw, _ := q.Pack()
	f.Add(raw)
	f.Add([]byte{})
	v := testServer()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if out := v.answer(raw, "udp"); out != nil {
			var p dnsmessage.Parser
			if _, err := p.Start(out); err != nil {
				t.Errorf("unreadable answer: %v", err)
			}
		}
		if q, ok := parse(raw); ok {
			q.answeredBy(raw)
		}
	})
}
