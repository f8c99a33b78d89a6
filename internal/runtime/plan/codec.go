package plan

import (
	"encoding/binary"
	"errors"
)

// Marshal is the plan's form on its way to the stage: steps without their
// reasons, each field in the order of Step, numbers as varints, strings and
// lists with their length in front.
func (p *Plan) Marshal() []byte { return MarshalSteps(p.Steps) }

// MarshalSteps is Marshal for steps that were changed after compiling.
func MarshalSteps(steps []Step) []byte {
	e := encoder{make([]byte, 0, 8192)}
	e.num(uint64(len(steps)))
	for i := range steps {
		s := &steps[i]
		e.num(uint64(s.Op))
		for _, v := range [...]string{s.Path, s.Source, s.Type, s.Data} {
			e.str(v)
		}
		for _, v := range [...]uint64{s.Flags, s.Prop, s.Set, s.Clear, s.RecSet, s.RecClear, s.FD} {
			e.num(v)
		}
		e.num(uint64(len(s.Num)))
		for _, v := range s.Num {
			e.num(v)
		}
		e.strs(s.List)
		e.strs(s.Env)
	}
	return e.b
}

type encoder struct{ b []byte }

func (e *encoder) num(v uint64) { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) str(v string) {
	e.num(uint64(len(v)))
	e.b = append(e.b, v...)
}
func (e *encoder) strs(v []string) {
	e.num(uint64(len(v)))
	for _, s := range v {
		e.str(s)
	}
}

// ErrTruncated says that the bytes are no plan.
var ErrTruncated = errors.New("malformed plan")

// Unmarshal is the stage's end of Marshal.
func Unmarshal(b []byte) ([]Step, error) {
	d := decoder{b: b}
	n := d.count()
	steps := make([]Step, n)
	for i := range steps {
		s := &steps[i]
		s.Op = Op(d.num())
		for _, v := range [...]*string{&s.Path, &s.Source, &s.Type, &s.Data} {
			*v = d.str()
		}
		for _, v := range [...]*uint64{&s.Flags, &s.Prop, &s.Set, &s.Clear, &s.RecSet, &s.RecClear, &s.FD} {
			*v = d.num()
		}
		if n := d.count(); n > 0 {
			s.Num = make([]uint64, n)
			for i := range s.Num {
				s.Num[i] = d.num()
			}
		}
		s.List, s.Env = d.strs(), d.strs()
		if d.bad {
			return nil, ErrTruncated
		}
	}
	if d.bad || len(d.b) != 0 {
		return nil, ErrTruncated
	}
	return steps, nil
}

type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) num() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count is a number of things that take at least a byte each.
func (d *decoder) count() int {
	n := d.num()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) str() string {
	n := d.count()
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) strs() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	v := make([]string, n)
	for i := range v {
		v[i] = d.str()
	}
	return v
}
