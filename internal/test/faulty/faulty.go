// Package faulty is a proxy between a registry and its clients that does what networks and bad registries do.
//
//	fault   one thing that goes wrong, for the requests it fits, so many times
//
// The proxy counts what it moved, so that a test can tell what a retry cost. It is an http.Handler;
// Serve starts it on a port of its own.
package faulty

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Kind is what goes wrong.
type Kind string

// The kinds of faults. After is where in the answer's body (for CutUpload: in the request's) they strike.
const (
	Cut       Kind = "cut"       // the connection breaks after After bytes
	CutUpload Kind = "cutupload" // the connection breaks after After bytes of the request
	Truncate  Kind = "truncate"  // the answer ends well after After bytes, and says that it is that long
	Corrupt   Kind = "corrupt"   // the byte at After is another one
	Longer    Kind = "longer"    // the answer has a Content-Length of 1 more, and a byte more
	Shorter   Kind = "shorter"   // the answer has a Content-Length of 1 less
	Endless   Kind = "endless"   // the answer never ends, and has no Content-Length
	Delay     Kind = "delay"     // nothing comes for Wait
	Drip      Kind = "drip"      // a byte comes every Wait
	Hang      Kind = "hang"      // nothing comes after After bytes, until the client goes
	Slow      Kind = "slow"      // no more than After bytes a second, on each connection
	Status    Kind = "status"    // the answer is Code, with Retry-After of Wait (rounded up to seconds) if Wait is not 0
	Moved     Kind = "moved"     // the answer is a redirect to To
	NoRanges  Kind = "noranges"  // Range is not passed on
	Silent    Kind = "silent"    // the answer lacks the header To
)

// Fault is one thing that goes wrong.
type Fault struct {
	Kind   Kind
	Method string // "" fits all
	Path   string // a part of the path; "" fits all
	Times  int    // how often; 0 is always
	After  int64
	Wait   time.Duration
	Code   int
	To     string // a base URL
}

// Proxy forwards to one registry. It is safe for concurrent use.
type Proxy struct {
	target string
	client http.Client

	mu      sync.Mutex // guards all below
	faults  []*Fault
	struck  int
	asked   []string
	down    int64 // bytes of bodies that were sent to clients
	up      int64 // bytes of bodies that came from clients
	active  map[string]int
	widest  map[string]int
	granted []http.Header
}

// Serve starts a proxy of the registry at target ("http://host:port"); url is the proxy's own address.
func Serve(t testing.TB, target string) (p *Proxy, url string) {
	t.Helper()
	p = New(target)
	srv := httptest.NewServer(p)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		p.client.CloseIdleConnections()
	})
	return p, srv.URL
}

// New makes a proxy that has to be served.
func New(target string) *Proxy {
	return &Proxy{target: strings.TrimSuffix(target, "/"), active: map[string]int{}, widest: map[string]int{},
		client: http.Client{
			Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}}
}

// Set replaces the faults, and forgets what was counted.
func (p *Proxy) Set(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
	for _, f := range faults {
		p.faults = append(p.faults, &f)
	}
	p.struck, p.asked, p.down, p.up, p.granted = 0, nil, 0, 0, nil
	clear(p.widest)
}

// Moved are the bytes of bodies since Set, down to clients and up from them.
func (p *Proxy) Moved() (down, up int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down, p.up
}

// Struck is how many faults happened since Set.
func (p *Proxy) Struck() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.struck
}

// Asked are the requests since Set, "GET /v2/…", in their order.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// Headers are the headers of the requests since Set.
func (p *Proxy) Headers() []http.Header {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]http.Header(nil), p.granted...)
}

// Widest is how many requests for a path were under way at once, at most, since Set.
func (p *Proxy) Widest(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for at, w := range p.widest {
		if strings.Contains(at, path) {
			n = max(n, w)
		}
	}
	return n
}

// begin notes a request and picks its fault, the first that fits.
func (p *Proxy) begin(r *http.Request) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, r.Method+" "+r.URL.Path)
	p.granted = append(p.granted, r.Header.Clone())
	p.active[r.URL.Path]++
	p.widest[r.URL.Path] = max(p.widest[r.URL.Path], p.active[r.URL.Path])
	for i, f := range p.faults {
		if f.Method != "" && f.Method != r.Method || !strings.Contains(r.URL.Path, f.Path) {
			continue
		}
		p.struck++
		if f.Times == 1 {
			p.faults = append(p.faults[:i:i], p.faults[i+1:]...)
		} else if f.Times > 1 {
			f.Times--
		}
		return *f
	}
	return Fault{}
}

func (p *Proxy) end(r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active[r.URL.Path]--
}

// ServeHTTP forwards one request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.begin(r)
	defer p.end(r)
	switch f.Kind {
	case Status:
		if f.Wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((f.Wait+time.Second-1)/time.Second)))
		}
		http.Error(w, http.StatusText(f.Code), f.Code)
		return
	case Moved:
		w.Header().Set("Location", f.To+r.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	case Delay:
		if !wait(r, f.Wait) {
			return
		}
	case NoRanges:
		r.Header.Del("Range")
	}
	body := &counted{r: r.Body, add: func(n int64) { p.add(0, n) }, limit: -1}
	if f.Kind == CutUpload {
		body.limit = f.After
	}
	u, err := url.Parse(p.target + r.URL.RequestURI())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	rq := r.Clone(r.Context())
	rq.URL, rq.Host, rq.RequestURI, rq.Body = u, r.Host, "", io.NopCloser(body)
	if r.ContentLength == 0 {
		rq.Body = http.NoBody
	}
	rs, err := p.client.Do(rq)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer rs.Body.Close()
	for k, vs := range rs.Header {
		w.Header()[k] = vs
	}
	p.answer(w, r, rs, f)
}

// answer sends the body, with the fault in it.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, rs *http.Response, f Fault) {
	length := rs.ContentLength
	switch f.Kind {
	case Silent:
		w.Header().Del(f.To)
	case Truncate:
		length = min(length, f.After)
	case Longer:
		length++
	case Shorter:
		length--
	case Endless:
		length = -1
	}
	w.Header().Del("Content-Length")
	if length >= 0 {
		w.Header().Set("Content-Length", fmt.Sprint(length))
	}
	w.WriteHeader(rs.StatusCode)
	if r.Method == http.MethodHead {
		return
	}
	out := &sender{p: p, w: w}
	src := io.Reader(rs.Body)
	switch f.Kind {
	case Cut:
		out.copy(io.LimitReader(src, f.After))
		panic(http.ErrAbortHandler)
	case Truncate, Shorter:
		src = io.LimitReader(src, max(length, 0))
	case Hang:
		if out.copy(io.LimitReader(src, f.After)); out.sent < f.After {
			return // a shorter answer is whole
		}
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case Corrupt:
		out.copy(io.LimitReader(src, f.After))
		var b [1]byte
		if n, _ := src.Read(b[:]); n == 1 {
			out.Write([]byte{b[0] ^ 0xff})
		}
	case Drip:
		var b [1]byte
		for wait(r, f.Wait) {
			if n, _ := src.Read(b[:]); n == 0 {
				return
			}
			out.Write(b[:])
			out.flush()
		}
		return
	case Slow:
		slow(r, out, src, f.After)
		return
	}
	if err := out.copy(src); err != nil {
		panic(http.ErrAbortHandler)
	}
	switch f.Kind {
	case Longer:
		out.Write([]byte{'x'})
	case Endless:
		for zeros := make([]byte, 64<<10); r.Context().Err() == nil; {
			if _, err := out.Write(zeros); err != nil {
				return
			}
		}
	}
}

// slow sends in small steps, so many bytes a second.
func slow(r *http.Request, out *sender, src io.Reader, rate int64) {
	began, sent := time.Now(), int64(0)
	buf := make([]byte, max(rate/50, 1))
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := out.Write(buf[:n]); werr != nil {
				return
			}
			out.flush()
			sent += int64(n)
			if !wait(r, time.Duration(float64(sent)/float64(rate)*float64(time.Second))-time.Since(began)) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait is false if the client has gone meanwhile.
func wait(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

func (p *Proxy) add(down, up int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down += down
	p.up += up
}

// sender counts what goes to a client.
type sender struct {
	p    *Proxy
	w    http.ResponseWriter
	sent int64
}

func (s *sender) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.sent += int64(n)
	s.p.add(int64(n), 0)
	return n, err
}

func (s *sender) flush() { http.NewResponseController(s.w).Flush() }

func (s *sender) copy(r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{r}, make([]byte, 32<<10))
	s.flush()
	return err
}

// counted is a request's body; after limit bytes (if ≥ 0) it breaks.
type counted struct {
	r     io.Reader
	add   func(int64)
	limit int64
}

func (c *counted) Read(b []byte) (int, error) {
	if c.limit == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	if c.limit > 0 {
		b = b[:min(int64(len(b)), c.limit)]
	}
	n, err := c.r.Read(b)
	if c.limit > 0 {
		c.limit -= int64(n)
	}
	c.add(int64(n))
	return n, err
}
