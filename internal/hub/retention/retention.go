// Package retention decides what goes by itself: a pure plan of what the rules take from one repository, with a
// reason for each step. The registry carries it out (and the command line prints it).
package retention

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"tare/internal/hub/config"
	"tare/internal/hub/pattern"
)

// Tag is a tag of the repository.
type Tag struct {
	Name   string
	Digest string
	Set    time.Time // when it was last set
}

// Manifest is a manifest of the repository.
type Manifest struct {
	Digest string
	Pushed time.Time
	Pulled time.Time // zero if never
	Parts  []string  // the manifests of an index
	Of     string    // the subject, "" for none
}

// Repository is what a plan is made of.
type Repository struct {
	Name      string
	Tags      []Tag
	Manifests []Manifest
}

// Step is one thing to remove.
type Step struct {
	Tag    string // "" for a manifest
	Digest string // what the tag stands for, or the manifest
	Reason string
}

// Plan applies the rules that concern the repository, in order. held tells which tags never go, whatever a rule says.
func Plan(r Repository, rules []config.Retention, now time.Time, held func(tag string) bool) []Step {
	var steps []Step
	gone := map[string]bool{} // tags
	for i, rule := range rules {
		if !pattern.Any(rule.Repositories, r.Name) {
			continue
		}
		for _, s := range tags(r, rule, now, gone, held) {
			s.Reason = fmt.Sprintf("retention[%d]: %s", i, s.Reason)
			gone[s.Tag] = true
			steps = append(steps, s)
		}
	}
	left := slices.DeleteFunc(slices.Clone(r.Tags), func(t Tag) bool { return gone[t.Name] })
	for i, rule := range rules {
		if !pattern.Any(rule.Repositories, r.Name) {
			continue
		}
		for _, s := range manifests(r, rule, left, now) {
			if slices.ContainsFunc(steps, func(o Step) bool { return o.Tag == "" && o.Digest == s.Digest }) {
				continue
			}
			s.Reason = fmt.Sprintf("retention[%d]: %s", i, s.Reason)
			steps = append(steps, s)
		}
	}
	return steps
}

func tags(r Repository, rule config.Retention, now time.Time, gone map[string]bool, held func(string) bool) []Step {
	var concerned []Tag
	for _, t := range r.Tags {
		if !gone[t.Name] && pattern.Any(rule.Tags, t.Name) && !pattern.Any(rule.Except, t.Name) && !held(t.Name) {
			concerned = append(concerned, t)
		}
	}
	slices.SortStableFunc(concerned, func(a, b Tag) int {
		return cmp.Or(b.Set.Compare(a.Set), cmp.Compare(a.Name, b.Name))
	})
	pulled := map[string]time.Time{}
	for _, m := range r.Manifests {
		pulled[m.Digest] = later(m.Pushed, m.Pulled)
	}
	var steps []Step
	for i, t := range concerned {
		switch last := later(pulled[t.Digest], t.Set); {
		case rule.Unused > 0 && now.Sub(last) > rule.Unused.Std():
			steps = append(steps, Step{t.Name, t.Digest, fmt.Sprintf("not used since %s", last.UTC().Format(time.RFC3339))})
		case rule.Keep == 0 && rule.For == 0:
		case rule.Keep > 0 && i < rule.Keep:
		case rule.For > 0 && now.Sub(t.Set) <= rule.For.Std():
		case rule.For > 0:
			steps = append(steps, Step{t.Name, t.Digest, fmt.Sprintf("set %s, longer ago than %s", t.Set.UTC().Format(time.RFC3339), rule.For.Std())})
		default:
			steps = append(steps, Step{t.Name, t.Digest, fmt.Sprintf("%d newer tags are kept", rule.Keep)})
		}
	}
	return steps
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// manifests finds those that neither a tag, an index that stays nor a subject that stays keeps.
func manifests(r Repository, rule config.Retention, left []Tag, now time.Time) []Step {
	if rule.Untagged == 0 {
		return nil
	}
	byDigest := map[string]Manifest{}
	referrers := map[string][]string{}
	for _, m := range r.Manifests {
		byDigest[m.Digest] = m
		if m.Of != "" {
			referrers[m.Of] = append(referrers[m.Of], m.Digest)
		}
	}
	kept := map[string]bool{}
	var keep func(d string)
	keep = func(d string) {
		m, ok := byDigest[d]
		if !ok || kept[d] {
			return
		}
		kept[d] = true
		for _, p := range m.Parts {
			keep(p)
		}
		for _, p := range referrers[d] {
			keep(p)
		}
	}
	for _, t := range left {
		keep(t.Digest)
	}
	young := func(m Manifest) bool { return now.Sub(later(m.Pushed, m.Pulled)) <= rule.Untagged.Std() }
	for _, m := range r.Manifests {
		if young(m) {
			keep(m.Digest)
		}
	}
	var steps []Step
	for _, m := range r.Manifests {
		if !kept[m.Digest] {
			steps = append(steps, Step{"", m.Digest, fmt.Sprintf("without a tag for longer than %s", rule.Untagged.Std())})
		}
	}
	return steps
}
