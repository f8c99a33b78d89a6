package pattern

import "testing"

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a/b", "a/b", true}, {"a", "a/b", false},
		{"*", "a", true}, {"*", "a/b", false}, {"**", "a", true}, {"**", "a/b/c", true},
		{"team/*", "team/a", true}, {"team/*", "team/a/b", false}, {"team/*", "team", false},
		{"team/**", "team/a/b", true}, {"team/**", "team", false}, {"team/**", "teams/a", false},
		{"**/x", "a/b/x", true}, {"**/x", "x", true}, {"a/**/x", "a/x", true}, {"a/**/x", "a/b/c/x", true}, {"a/**/x", "a/b/c", false},
		{"v*", "v1", true}, {"v*", "v", true}, {"*-rc*", "1.0-rc2", true}, {"*-rc*", "1.0", false}, {"v*.*.*", "v1.2.3", true}, {"v*.*.*", "v1.2", false},
		{"a*b*c", "aXXbYYc", true}, {"a*b*c", "aXXbYY", false}, {"", "", true}, {"", "a", false}, {"**/**", "a", true},
	} {
		if got := Match(c.pattern, c.name); got != c.want {
			t.Errorf("Match(%q, %q) is %v", c.pattern, c.name, got)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*/**/b", "ab/c/d/b")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 60 || len(name) > 60 {
			return
		}
		Match(pattern, name)
		if !Match("**", name) {
			t.Errorf("** does not match %q", name)
		}
	})
}
