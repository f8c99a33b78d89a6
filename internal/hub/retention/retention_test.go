package retention

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tare/internal/hub/config"
)

func TestPlan(t *testing.T) {
	now := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
	days := func(n int) time.Time { return now.AddDate(0, 0, -n) }
	day := config.Duration(24 * time.Hour)
	r := Repository{Name: "ci/app"}
	for i, name := range []string{"b1", "b2", "b3", "b4", "release", "held"} {
		d := fmt.Sprint("m", i+1)
		r.Tags = append(r.Tags, Tag{name, d, days(10 - i)})
		r.Manifests = append(r.Manifests, Manifest{Digest: d, Pushed: days(10 - i)})
	}
	r.Manifests[0].Pulled = days(1)
	r.Manifests = append(r.Manifests,
		Manifest{Digest: "part", Pushed: days(20)}, Manifest{Digest: "sbom", Pushed: days(20), Of: "m5"},
		Manifest{Digest: "stray", Pushed: days(20)}, Manifest{Digest: "strays-sbom", Pushed: days(20), Of: "stray"},
		Manifest{Digest: "young", Pushed: days(1), Parts: []string{"youngs-part"}}, Manifest{Digest: "youngs-part", Pushed: days(20)},
		Manifest{Digest: "pulled", Pushed: days(20), Pulled: days(1)})
	r.Manifests[5].Parts = []string{"part"}
	for name, c := range map[string]struct {
		rules []config.Retention
		want  string
	}{
		"another repository": {[]config.Retention{{Repositories: []string{"x"}, Tags: []string{"*"}, Keep: 1}}, ""},
		"keep":               {[]config.Retention{{Repositories: []string{"ci/*"}, Tags: []string{"b*"}, Keep: 2}}, "b2 b1"},
		"for":                {[]config.Retention{{Repositories: []string{"ci/*"}, Tags: []string{"*"}, For: 8 * day}}, "b2 b1"},
		"both":               {[]config.Retention{{Repositories: []string{"ci/*"}, Tags: []string{"*"}, For: 8 * day, Keep: 4}}, "b1"},
		"except":             {[]config.Retention{{Repositories: []string{"ci/*"}, Tags: []string{"*"}, Except: []string{"b*"}, For: day}}, "release"},
		"unused":             {[]config.Retention{{Repositories: []string{"ci/*"}, Tags: []string{"*"}, Unused: 8 * day}}, "b2"},
		"untagged":           {[]config.Retention{{Repositories: []string{"**"}, Tags: []string{"none"}, Untagged: 5 * day}}, "@stray @strays-sbom"},
		"tags, then manifests": {[]config.Retention{{Repositories: []string{"**"}, Tags: []string{"release"}, For: day},
			{Repositories: []string{"**"}, Tags: []string{"none"}, Untagged: 5 * day}}, "release @m5 @sbom @stray @strays-sbom"},
	} {
		var got []string
		for _, s := range Plan(r, c.rules, now, func(tag string) bool { return tag == "held" }) {
			if s.Reason == "" || !strings.HasPrefix(s.Reason, "retention[") {
				t.Errorf("%s: %+v has no reason", name, s)
			}
			if s.Tag == "" {
				s.Tag = "@" + s.Digest
			}
			got = append(got, s.Tag)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
