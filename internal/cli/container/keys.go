package container

import (
	"fmt"
	"io"
	"strings"
)

// parseKeys reads a detach sequence: keys with commas between them, each a character or
// ctrl- and one of a-z @ [ \ ] ^ _. The default is ctrl-p,ctrl-q.
func parseKeys(s string) ([]byte, error) {
	if s == "" {
		return []byte{0x10, 0x11}, nil
	}
	var keys []byte
	for key := range strings.SplitSeq(s, ",") {
		c, control := strings.CutPrefix(key, "ctrl-")
		if len(c) != 1 {
			return nil, fmt.Errorf("invalid detach keys (%s): unknown character: '%s'", s, key)
		}
		switch {
		case !control:
			keys = append(keys, c[0])
		case c[0] >= 'a' && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case strings.Contains("@[\\]^_", c):
			keys = append(keys, c[0]-'@')
		default:
			return nil, fmt.Errorf("invalid detach keys (%s): unknown character: '%s'", s, key)
		}
	}
	return keys, nil
}

// keyReader passes on what it reads and notices the keys in it.
type keyReader struct {
	r     io.Reader
	keys  []byte // none: nothing to notice
	seen  int    // how many of them were typed one after the other
	typed func()
}

func (k *keyReader) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	for _, c := range p[:n] {
		if len(k.keys) == 0 {
			break
		}
		if c != k.keys[k.seen] {
			k.seen = 0
			if c != k.keys[0] {
				continue
			}
		}
		if k.seen++; k.seen == len(k.keys) {
			k.seen = 0
			k.typed()
		}
	}
	return n, err
}
