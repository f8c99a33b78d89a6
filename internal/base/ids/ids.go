// Package ids makes and abbreviates the random identifiers of containers,
// networks and execs: 256 bits in lower-case hex, shown as the first 12 digits.
package ids

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// ShortLen is the number of digits shown to people.
const ShortLen = 12

// New returns a fresh identifier of 64 hex digits. An all-digit prefix is
// avoided, because DNS and hostname code reads such a name as a number.
func New() string {
	var b [32]byte
	for {
		rand.Read(b[:])
		id := hex.EncodeToString(b[:])
		if strings.ContainsAny(id[:ShortLen], "abcdef") {
			return id
		}
	}
}

// Short returns the first 12 digits of an identifier or digest, without its "sha256:".
func Short(id string) string {
	if i := strings.IndexByte(id, ':'); i >= 0 {
		id = id[i+1:]
	}
	return id[:min(len(id), ShortLen)]
}
