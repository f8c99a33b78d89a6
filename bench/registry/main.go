// Command registry measures tare-registry beside Debian's docker-registry: requests a second, bytes a second in both directions, and
// memory under 64 uploads at once. Each measure is taken of one after the other, round by round; what is written are medians.
// The client is as light as it can be (raw connections, bodies dropped in the kernel), because it shares the machine's cores.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"tare/internal/test/images"
)

// registry is one of the two.
type registry struct {
	name string
	addr string
	cmd  *exec.Cmd
	root string
}

const (
	pullSize = 256 << 20
	pushSize = 64 << 20
	uploads  = 64
)

func main() {
	log.SetFlags(0)
	bin := flag.String("bin", "bin", "folder of our programs")
	work := flag.String("work", "", "an empty folder, which the caller removes")
	rounds := flag.Int("rounds", 5, "rounds")
	span := flag.Duration("span", 2*time.Second, "how long one measure of requests takes")
	out := flag.String("out", "", "file for the table; standard output without")
	flag.Parse()
	if *work == "" {
		log.Fatal("bench/registry.sh starts this program, with a folder to work in")
	}
	both := []*registry{start(*work, "tare-registry", *bin), start(*work, "docker-registry", "")}
	defer func() {
		for _, r := range both {
			r.cmd.Process.Kill()
			r.cmd.Wait()
		}
	}()
	img, err := images.Generate(images.Options{Layers: 8, FilesPerLayer: 10})
	check(err)
	data := make([]byte, pullSize)
	fill(data, 1)
	big := digest.FromBytes(data)
	for _, r := range both {
		check(img.Push("http://"+r.addr, "bench", "latest"))
		check(images.PushBlob("http://"+r.addr, "bench", data))
	}
	data = nil
	type measure struct {
		name, unit string
		mark       string
		run        func(r *registry, round int) float64
	}
	get := func(path string, headers ...string) func(r *registry, _ int) float64 {
		return func(r *registry, _ int) float64 { return r.perSecond(16, *span, path, headers...) }
	}
	accept := "Accept: application/vnd.oci.image.manifest.v1+json"
	small := img.Config.Digest.String()
	measures := []measure{
		{"GET of a manifest by tag", "requests/s", "≥ 2×", get("GET /v2/bench/manifests/latest", accept)},
		{"HEAD of a manifest by tag", "requests/s", "≥ 2×", get("HEAD /v2/bench/manifests/latest", accept)},
		{"GET of a manifest by digest", "requests/s", "≥ 2×", get("GET /v2/bench/manifests/"+img.Manifest.Digest.String(), accept)},
		{"GET of a small blob", "requests/s", "≥ 2×", get("GET /v2/bench/blobs/" + small)},
		{"HEAD of a blob", "requests/s", "≥ 2×", get("HEAD /v2/bench/blobs/" + small)},
		{"whole push of a small image (10 blobs)", "pushes/s", "", func(r *registry, round int) float64 { return r.pushes(round, *span) }},
		{"blobs out, 4 connections", "GB/s", "≥ 2×", func(r *registry, _ int) float64 { return r.pull(4, 3, "GET /v2/bench/blobs/"+big.String()) }},
		{"blobs in, 4 connections", "GB/s", "≥ 2×", func(r *registry, round int) float64 { return r.push(4, 2, round) }},
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| measure | tare-registry | docker-registry | ratio | mark |\n|---|--:|--:|--:|---|\n")
	for _, m := range measures {
		values := make([][]float64, len(both))
		for round := range *rounds {
			for i, r := range both {
				values[i] = append(values[i], m.run(r, round))
			}
		}
		x, y := median(values[0]), median(values[1])
		line := fmt.Sprintf("| %s | %.4g %s | %.4g %s | %.1f× | %s |", m.name, x, m.unit, y, m.unit, x/y, m.mark)
		fmt.Fprintln(os.Stderr, line)
		fmt.Fprintln(&b, line)
	}
	var peak [2]float64
	for i, r := range both {
		r.restart(*work, *bin)
		peak[i] = r.peak()
	}
	line := fmt.Sprintf("| peak memory at %d uploads at once | %.0f MiB | %.0f MiB | %.1f× | ≤ 100 MiB |", uploads, peak[0], peak[1], peak[0]/peak[1])
	fmt.Fprintln(os.Stderr, line)
	fmt.Fprintln(&b, line)
	if *out == "" {
		fmt.Print(b.String())
		return
	}
	head := "# The registry's benches\n\n`bench/registry.sh` measures tare-registry beside Debian's docker-registry (delete enabled, no access log; both log failures only), round by round in one run; medians. " +
		"Pushes are whole ones, or blobs without a manifest (\"blobs in\"), for which tare-registry does not wait for the disk.\n\nLast run: " + time.Now().UTC().Format(time.DateOnly) + ".\n\n"
	check(os.WriteFile(*out, []byte(head+b.String()), 0o644))
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}

func fill(data []byte, seed uint64) {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	rand.NewChaCha8(key).Read(data)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	defer l.Close()
	return l.Addr().String()
}

func start(work, name, bin string) *registry {
	r := &registry{name: name, addr: freeAddr(), root: filepath.Join(work, name)}
	check(os.MkdirAll(r.root, 0o755))
	r.run(work, bin)
	return r
}

func (r *registry) run(work, bin string) {
	if r.name == "tare-registry" {
		r.cmd = exec.Command(filepath.Join(bin, "tare-registry"), "--root", r.root, "--addr", r.addr, "--quiet")
	} else {
		config := filepath.Join(work, "docker-registry.yml")
		check(os.WriteFile(config, fmt.Appendf(nil, "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}, cache: {blobdescriptor: inmemory}}\nhttp: {addr: %s}\n", r.root, r.addr), 0o644))
		r.cmd = exec.Command("docker-registry", "serve", config)
	}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(r.cmd.Start())
	for range 500 {
		if c, err := net.Dial("tcp", r.addr); err == nil {
			c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	log.Panicf("%s does not answer", r.name)
}

func (r *registry) restart(work, bin string) {
	r.cmd.Process.Kill()
	r.cmd.Wait()
	r.run(work, bin)
}

// conn is one connection of the light client.
type conn struct {
	c   *net.TCPConn
	in  *bufio.Reader
	raw syscall.RawConn
}

func (r *registry) dial() *conn {
	c, err := net.Dial("tcp", r.addr)
	check(err)
	t := c.(*net.TCPConn)
	raw, err := t.SyscallConn()
	check(err)
	return &conn{t, bufio.NewReaderSize(c, 4096), raw}
}

// ask makes a request and drops the body; it returns the body's length.
func (c *conn) ask(request []byte, head bool) int64 {
	_, err := c.c.Write(request)
	check(err)
	status, err := c.in.ReadSlice('\n')
	check(err)
	if len(status) < 12 || status[9] != '2' {
		log.Panicf("answer %q", status)
	}
	length := int64(0)
	for {
		line, err := c.in.ReadSlice('\n')
		check(err)
		if len(line) <= 2 {
			break
		}
		if len(line) > 16 && bytes.EqualFold(line[:16], []byte("Content-Length: ")) {
			length, err = strconv.ParseInt(string(bytes.TrimSpace(line[16:])), 10, 64)
			check(err)
		}
	}
	if head {
		return length
	}
	left := length
	if n := min(int64(c.in.Buffered()), left); n > 0 {
		c.in.Discard(int(n))
		left -= n
	}
	if left > 0 {
		c.drop(left)
	}
	return length
}

// drop throws bytes away in the kernel (MSG_TRUNC, tcp(7)).
func (c *conn) drop(left int64) {
	buf := make([]byte, 1<<20)
	for left > 0 {
		var n int
		var err error
		check(c.raw.Read(func(fd uintptr) bool {
			n, _, err = unix.Recvfrom(int(fd), buf[:min(int64(len(buf)), left)], unix.MSG_TRUNC)
			return err != unix.EAGAIN
		}))
		check(err)
		if n == 0 {
			check(io.ErrUnexpectedEOF)
		}
		left -= int64(n)
	}
}

func (r *registry) request(line string, headers ...string) []byte {
	method, path, _ := strings.Cut(line, " ")
	return []byte(method + " " + path + " HTTP/1.1\r\nHost: " + r.addr + "\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n")
}

func (r *registry) perSecond(conns int, span time.Duration, line string, headers ...string) float64 {
	request, head := r.request(line, headers...), strings.HasPrefix(line, "HEAD")
	var count atomic.Int64
	var group sync.WaitGroup
	began := time.Now()
	for range conns {
		group.Go(func() {
			c := r.dial()
			defer c.c.Close()
			for time.Since(began) < span {
				c.ask(request, head)
				count.Add(1)
			}
		})
	}
	group.Wait()
	return float64(count.Load()) / time.Since(began).Seconds()
}

func (r *registry) pull(conns, times int, line string) float64 {
	request := r.request(line)
	var total atomic.Int64
	var group sync.WaitGroup
	began := time.Now()
	for range conns {
		group.Go(func() {
			c := r.dial()
			defer c.c.Close()
			for range times {
				total.Add(c.ask(request, false))
			}
		})
	}
	group.Wait()
	return float64(total.Load()) / 1e9 / time.Since(began).Seconds()
}

var seed atomic.Uint64

// push uploads new blobs, as docker does: POST, PATCH, PUT.
func (r *registry) push(conns, times, round int) float64 {
	type blob struct {
		data []byte
		d    digest.Digest
	}
	all := make([][]blob, conns)
	for i := range all {
		for range times {
			b := blob{data: make([]byte, pushSize)}
			fill(b.data, seed.Add(1)+1000)
			b.d = digest.FromBytes(b.data)
			all[i] = append(all[i], b)
		}
	}
	var group sync.WaitGroup
	began := time.Now()
	for _, blobs := range all {
		group.Go(func() {
			for _, b := range blobs {
				check(r.upload(b.data, b.d))
			}
		})
	}
	group.Wait()
	return float64(conns*times*pushSize) / 1e9 / time.Since(began).Seconds()
}

func (r *registry) upload(data []byte, d digest.Digest) error {
	rs, err := http.Post("http://"+r.addr+"/v2/bench/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	rs.Body.Close()
	for _, step := range []string{"PATCH", "PUT"} {
		at, err := rs.Location()
		if err != nil {
			return err
		}
		var body io.Reader
		if step == "PATCH" {
			body = bytes.NewReader(data)
		} else {
			q := at.Query()
			q.Set("digest", d.String())
			at.RawQuery = q.Encode()
		}
		rq, err := http.NewRequest(step, at.String(), body)
		if err != nil {
			return err
		}
		if rs, err = http.DefaultClient.Do(rq); err != nil {
			return err
		}
		rs.Body.Close()
		if rs.StatusCode >= 300 {
			return fmt.Errorf("%s: %s", step, rs.Status)
		}
	}
	return nil
}

func (r *registry) pushes(round int, span time.Duration) float64 {
	began := time.Now()
	n := 0
	for ; time.Since(began) < span; n++ {
		img, err := images.Generate(images.Options{Layers: 8, Seed: seed.Add(1)})
		check(err)
		check(img.Push("http://"+r.addr, "small", fmt.Sprint("t", n)))
	}
	return float64(n) / time.Since(began).Seconds()
}

// peak is the most memory that 64 uploads of 16 MiB at once took, in MiB.
func (r *registry) peak() float64 {
	var group sync.WaitGroup
	for range uploads {
		group.Go(func() {
			data := make([]byte, 16<<20)
			fill(data, seed.Add(1)+100000)
			check(r.upload(data, digest.FromBytes(data)))
		})
	}
	group.Wait()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	check(err)
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			check(err)
			return kb / 1024
		}
	}
	return 0
}
