package logs

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// parser decodes entries; what it returns is valid until the next parse.
type parser struct {
	text     []byte // of the line, without escapes
	other    []byte // of other strings
	rawAttrs []byte // the last ones, which the next entry most likely has too
	attrs    map[string]string
}

// parse decodes a line without its newline; ok is false if it is no entry. Keys may
// be in any order, and unknown ones are skipped.
func (p *parser) parse(line []byte) (e Entry, ok bool) {
	s := bytes.TrimSpace(line)
	if len(s) < 2 || s[0] != '{' {
		return Entry{}, false
	}
	s = space(s[1:])
	seen := false // log
	if s[0] == '}' {
		return Entry{}, false
	}
	for {
		var key, val []byte
		if key, s, ok = text(s, &p.other); !ok {
			return Entry{}, false
		}
		if s = space(s); len(s) == 0 || s[0] != ':' {
			return Entry{}, false
		}
		s = space(s[1:])
		switch string(key) {
		case "log":
			if e.Line, s, ok = text(s, &p.text); !ok {
				return Entry{}, false
			}
			seen = true
		case "stream":
			if val, s, ok = text(s, &p.other); !ok {
				return Entry{}, false
			}
			switch string(val) {
			case "stdout":
				e.Stream = "stdout"
			case "stderr":
				e.Stream = "stderr"
			default:
				e.Stream = string(val)
			}
		case "time":
			if val, s, ok = text(s, &p.other); !ok {
				return Entry{}, false
			}
			t, err := time.Parse(time.RFC3339Nano, string(val))
			if err != nil {
				return Entry{}, false
			}
			e.Time = t
		default:
			if val, s, ok = skip(s); !ok {
				return Entry{}, false
			}
			if string(key) == "attrs" {
				if !p.takeAttrs(val) {
					return Entry{}, false
				}
				e.Attrs = p.attrs
			}
		}
		if s = space(s); len(s) == 0 {
			return Entry{}, false
		}
		switch s[0] {
		case ',':
			s = space(s[1:])
			continue
		case '}':
			return e, seen && !e.Time.IsZero() && len(s) == 1
		}
		return Entry{}, false
	}
}

func (p *parser) takeAttrs(raw []byte) bool {
	if bytes.Equal(raw, p.rawAttrs) && p.attrs != nil {
		return true
	}
	attrs := map[string]string{}
	if json.Unmarshal(raw, &attrs) != nil || attrs == nil {
		return false
	}
	p.attrs, p.rawAttrs = attrs, append(p.rawAttrs[:0], raw...)
	return true
}

func space(s []byte) []byte {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t' || s[0] == '\r') {
		s = s[1:]
	}
	return s
}

// text decodes the JSON string at the start of s, into *buf if it has escapes.
func text(s []byte, buf *[]byte) (val, rest []byte, ok bool) {
	if len(s) == 0 || s[0] != '"' {
		return nil, nil, false
	}
	s = s[1:]
	out := (*buf)[:0]
	escaped := false
	for {
		i := bytes.IndexAny(s, `"\`)
		if i < 0 {
			return nil, nil, false
		}
		if s[i] == '"' {
			if !escaped {
				return s[:i], s[i+1:], true
			}
			out = append(out, s[:i]...)
			*buf = out
			return out, s[i+1:], true
		}
		escaped = true
		out = append(out, s[:i]...)
		s = s[i+1:]
		if len(s) == 0 {
			return nil, nil, false
		}
		c := s[0]
		s = s[1:]
		switch c {
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case '"', '\\', '/':
			out = append(out, c)
		case 'u':
			r, n := hex4(s)
			if n == 0 {
				return nil, nil, false
			}
			s = s[n:]
			if utf16.IsSurrogate(r) {
				second := rune(-1)
				if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
					second, _ = hex4(s[2:])
				}
				if r = utf16.DecodeRune(r, second); r != utf8.RuneError {
					s = s[6:]
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			return nil, nil, false
		}
	}
}

// hex4 decodes four hexadecimal digits; n is 0 if there are none.
func hex4(s []byte) (r rune, n int) {
	if len(s) < 4 {
		return 0, 0
	}
	for _, c := range s[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, 0
		}
		r = r<<4 | rune(c)
	}
	return r, 4
}

// skip passes over one JSON value, without checking all of it.
func skip(s []byte) (val, rest []byte, ok bool) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
			}
			if i >= len(s) {
				return nil, nil, false
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return s[:i], s[i:], i > 0
			}
			depth--
		case ',':
			if depth == 0 {
				return s[:i], s[i:], i > 0
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return s[:i+1], s[i+1:], true
		}
	}
	return nil, nil, false
}
