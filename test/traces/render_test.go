package traces

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// step is one line of a trace.
type step struct{ box, verb, kind, object string }

// lane is an operation or branch: steps, and between them the branches that ran there.
type lane struct {
	id    uint64
	at    int // of its first line in the trace, in bytes
	items []item
}

// item is a step, or a branch.
type item struct {
	step   step
	branch *lane
}

// parse makes operations of a trace, in the order in which they began.
func parse(text string) ([]*lane, error) {
	lanes := map[uint64]*lane{}
	var ops []*lane
	at := 0
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 6 {
			return nil, fmt.Errorf("not a step: %q", line)
		}
		id, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("not a step: %q", line)
		}
		if id == 0 {
			return nil, fmt.Errorf("the step %q belongs to no operation: its box was not handed the operation's context", line)
		}
		l := lanes[id]
		if l == nil {
			l = &lane{id: id, at: at}
			lanes[id] = l
			if f[1] == "0" {
				ops = append(ops, l)
			} else {
				parent, _ := strconv.ParseUint(f[1], 10, 64)
				p := lanes[parent]
				if p == nil {
					return nil, fmt.Errorf("the branch of %q belongs to nothing that was done before", line)
				}
				p.items = append(p.items, item{branch: l})
			}
		}
		l.items = append(l.items, item{step: step{f[2], f[3], f[4], f[5]}})
		at += len(line)
	}
	return ops, nil
}

// renderer writes lanes for people.
type renderer struct {
	floors  map[string]int    // boxes to their depth below the top floor
	numbers map[string]string // ids to their names, "container1"
	last    map[string]int    // the numbers given, by kind
	out     strings.Builder
	err     error
}

// lane writes one lane. prefix is what stands before its lines, base the depth of the boxes that have no more before them.
func (r *renderer) lane(l *lane, prefix string, base int) {
	for i := 0; i < len(l.items); {
		if l.items[i].branch == nil {
			r.step(l.items[i].step, prefix, base)
			prefix = strings.ReplaceAll(prefix, "‖", "│")
			i++
			continue
		}
		var set []*lane
		for ; i < len(l.items) && l.items[i].branch != nil; i++ {
			set = append(set, l.items[i].branch)
		}
		// Their first steps came as it happened; they were started in the order of their numbers.
		slices.SortFunc(set, func(a, b *lane) int { return cmp.Compare(a.id, b.id) })
		for _, b := range set {
			if len(set) == 1 {
				r.lane(b, prefix, base)
			} else {
				top := max(base, r.top(b))
				r.lane(b, prefix+strings.Repeat("  ", top-base)+"‖ ", top)
			}
			prefix = strings.ReplaceAll(prefix, "‖", "│")
		}
	}
}

// top is the smallest depth in a lane.
func (r *renderer) top(l *lane) int {
	least := len(r.floors)
	for _, i := range l.items {
		if i.branch != nil {
			least = min(least, r.top(i.branch))
		} else {
			least = min(least, r.depth(i.step))
		}
	}
	return least
}

func (r *renderer) depth(s step) int {
	d, ok := r.floors[s.box]
	if !ok {
		r.err = fmt.Errorf("ARCHITECTURE.md has no box %q, which did %s %s", s.box, s.verb, s.object)
	}
	return d
}

func (r *renderer) step(s step, prefix string, base int) {
	indent := strings.Repeat("  ", max(0, r.depth(s)-base))
	line := fmt.Sprintf("%s%s%-8s %-9s %s", prefix, indent, s.box, s.verb, r.object(s))
	r.out.WriteString(strings.TrimRight(line, " ") + "\n")
}

var identifier = regexp.MustCompile(`(sha256:|build-)?[0-9a-f]{64}`)

// object is a step's, without what differs from run to run: ids and digests become their kind and a number.
func (r *renderer) object(s step) string {
	said := s.verb == "event" || s.verb == "answer" // their kind is what is said, of an object known before
	text := identifier.ReplaceAllStringFunc(s.object, func(id string) string {
		kind := s.kind
		if said {
			kind = "object"
		}
		if strings.HasPrefix(id, "build-") {
			kind = "process" // of a RUN, which is no container
		}
		if r.numbers[id] == "" {
			r.last[kind]++
			r.numbers[id] = kind + strconv.Itoa(r.last[kind])
		}
		return r.numbers[id]
	})
	if said || text == "" {
		return strings.TrimSpace(s.kind + " " + text)
	}
	return text
}

// readFloors reads the boxes' floors from ARCHITECTURE.md, as depths: 0 for doors, 1 for the floor below, and so on.
func readFloors(file string) (map[string]int, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	floors := map[string]int{}
	var levels []int
	for _, m := range regexp.MustCompile(`(?m)^\| *(\d+) \| internal/(\w+) \|`).FindAllStringSubmatch(string(data), -1) {
		n, _ := strconv.Atoi(m[1])
		floors[m[2]] = n
		levels = append(levels, n)
	}
	if len(levels) == 0 {
		return nil, fmt.Errorf("%s has no table of floors", file)
	}
	slices.Sort(levels)
	slices.Reverse(levels)
	levels = slices.Compact(levels)
	for box, n := range floors {
		floors[box] = slices.Index(levels, n)
	}
	return floors, nil
}

// diff marks the lines that differ, between the parts at begin and end that are equal.
func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	head := 0
	for head < len(w) && head < len(g) && w[head] == g[head] {
		head++
	}
	tail := 0
	for tail < len(w)-head && tail < len(g)-head && w[len(w)-1-tail] == g[len(g)-1-tail] {
		tail++
	}
	var b strings.Builder
	mark := func(sign string, lines []string) {
		for _, l := range lines {
			b.WriteString(sign + l + "\n")
		}
	}
	mark("  ", w[max(0, head-3):head])
	mark("- ", w[head:len(w)-tail])
	mark("+ ", g[head:len(g)-tail])
	mark("  ", w[len(w)-tail:min(len(w), len(w)-tail+3)])
	return b.String()
}

// The order in which branches happen to record their steps does not show.
func TestRender(t *testing.T) {
	const (
		id    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
		trace = "1\t0\tserver\tPOST\t/x\t\n" +
			"1\t0\tengine\tstart\tcontainer\t" + id + "\n" +
			"3\t1\truntime\tcreate\tcontainer\t" + id + "\n" +
			"2\t1\tnetwork\tprepare\tcontainer\t" + id + "\n" +
			"4\t0\timage\tget\timage\ttools\n" +
			"2\t1\tnetwork\tjoin\tcontainer\t" + id + "\n" +
			"1\t0\tengine\tevent\tstart\t" + id + "\n"
		want = `server   POST      /x
  engine   start     container1
    ‖ network  prepare   container1
    │ network  join      container1
    ‖ runtime  create    container1
  engine   event     start container1
    image    get       tools
`
	)
	ops, err := parse(trace)
	if err != nil {
		t.Fatal(err)
	}
	r := renderer{floors: map[string]int{"server": 0, "engine": 1, "image": 2, "network": 2, "runtime": 2}, numbers: map[string]string{}, last: map[string]int{}}
	for _, op := range ops {
		r.lane(op, "", 0)
	}
	if got := r.out.String(); got != want || r.err != nil {
		t.Errorf("%v, got:\n%s", r.err, diff(want, got))
	}
	if _, err := parse("0\t0\timage\tget\timage\ttools\n"); err == nil {
		t.Error("a step outside any operation is not refused")
	}
}
