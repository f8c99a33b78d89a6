package dns

import (
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// query is a parsed question.
type query struct {
	header   dnsmessage.Header
	question dnsmessage.Question
	maxUDP   int // the largest answer that the asker takes by UDP
}

// parse reads a query of one question; ok is false for anything else.
func parse(msg []byte) (q query, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response {
		return query{}, false
	}
	question, err := p.Question()
	if err != nil || p.SkipAllQuestions() != nil {
		return query{}, false
	}
	q = query{header: h, question: question, maxUDP: 512}
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, true
	}
	for {
		rh, err := p.AdditionalHeader()
		if err != nil {
			return q, true
		}
		if rh.Type == dnsmessage.TypeOPT {
			q.maxUDP = min(max(512, int(rh.Class)), maxUDP)
		}
		if p.SkipAdditional() != nil {
			return q, true
		}
	}
}

// answeredBy reports whether msg is a response to this very question.
func (q query) answeredBy(msg []byte) bool {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != q.header.ID {
		return false
	}
	got, err := p.Question()
	if err == dnsmessage.ErrSectionDone {
		return h.RCode != dnsmessage.RCodeSuccess // some servers refuse without repeating the question
	}
	return err == nil && got.Type == q.question.Type && got.Class == q.question.Class &&
		strings.EqualFold(got.Name.String(), q.question.Name.String())
}

// reply builds a response; one that is too long for UDP says so and has no records.
func (q query) reply(code dnsmessage.RCode, records []dnsmessage.ResourceBody, network string) []byte {
	h := dnsmessage.Header{ID: q.header.ID, Response: true, OpCode: q.header.OpCode, RCode: code,
		RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true, Authoritative: len(records) > 0}
	msg := q.build(h, records)
	if network == "udp" && len(msg) > q.maxUDP {
		h.Truncated = true
		msg = q.build(h, nil)
	}
	return msg
}

func (q query) build(h dnsmessage.Header, records []dnsmessage.ResourceBody) []byte {
	b := dnsmessage.NewBuilder(make([]byte, 0, 512), h)
	b.EnableCompression()
	if b.StartQuestions() != nil || b.Question(q.question) != nil || b.StartAnswers() != nil {
		return nil
	}
	rh := dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: ttl}
	for _, r := range records {
		var err error
		switch r := r.(type) {
		case *dnsmessage.AResource:
			err = b.AResource(rh, *r)
		case *dnsmessage.PTRResource:
			err = b.PTRResource(rh, *r)
		}
		if err != nil {
			return nil
		}
	}
	msg, err := b.Finish()
	if err != nil {
		return nil
	}
	return msg
}
