package copier

import (
	"strconv"
	"strings"

	"tare/internal/base/fault"
)

// chmod applies chmod(1)'s words to a mode; "" changes nothing. The umask counts as 0.
func chmod(mode uint32, dir bool, words string) (uint32, error) {
	if words == "" {
		return mode, nil
	}
	if m, err := strconv.ParseUint(words, 8, 32); err == nil {
		return uint32(m) & 0o7777, nil
	}
	for clause := range strings.SplitSeq(words, ",") {
		ops := strings.TrimLeft(clause, "ugoa")
		who := clause[:len(clause)-len(ops)]
		if who == "" || strings.Contains(who, "a") {
			who = "ugo"
		}
		for ops != "" {
			end := len(ops)
			if i := strings.IndexAny(ops[1:], "+-="); i >= 0 {
				end = 1 + i
			}
			if !strings.Contains("+-=", ops[:1]) {
				return 0, fault.Invalid("invalid chmod parameter: '%s'", words)
			}
			mode = change(mode, dir, who, ops[0], ops[1:end])
			ops = ops[end:]
		}
	}
	return mode, nil
}

// shifts are the places of the classes' bits.
var shifts = map[rune]uint{'u': 6, 'g': 3, 'o': 0}

func change(mode uint32, dir bool, who string, op byte, letters string) uint32 {
	var bits, mask uint32 // what the letters mean, and what "=" clears
	for _, w := range who {
		s := shifts[w]
		mask |= 7 << s
		for _, l := range letters {
			switch l {
			case 'r':
				bits |= 4 << s
			case 'w':
				bits |= 2 << s
			case 'x':
				bits |= 1 << s
			case 'X':
				if dir || mode&0o111 != 0 {
					bits |= 1 << s
				}
			case 's':
				if w == 'u' {
					bits |= 0o4000
				} else if w == 'g' {
					bits |= 0o2000
				}
			case 't':
				bits |= 0o1000
			case 'u', 'g', 'o':
				bits |= (mode >> shifts[l] & 7) << s
			}
		}
		if w == 'u' {
			mask |= 0o4000
		} else if w == 'g' {
			mask |= 0o2000
		}
	}
	switch op {
	case '+':
		return mode | bits
	case '-':
		return mode &^ bits
	}
	return mode&^mask | bits
}
