package output

import (
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// Size is Docker's decimal size with three digits: "4.2MB".
func Size(bytes int64) string { return units.HumanSizeWithPrecision(float64(bytes), 3) }

// Age is how long ago t was: "5 minutes ago"; "N/A" for the zero time.
func Age(t time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return units.HumanDuration(time.Since(t)) + " ago"
}

// ID is an identifier for people: 12 digits, or all of it.
func ID(id string, full bool) string {
	if full {
		return id
	}
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}

// Ellipsis cuts s to n characters, the last of them "…".
func Ellipsis(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	if n <= 1 {
		return string(r[:n])
	}
	return string(r[:n-1]) + "…"
}

// Bool is a boolean in a table.
func Bool(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// Count is a number in a table.
func Count(n int64) string { return strconv.FormatInt(n, 10) }
