package scripts

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// What people wish for, and no stock client has.
func TestWishes(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	e.Tools()
	tare := func(args ...string) string {
		t.Helper()
		r := e.Tare(nil, args...)
		if r.Code != 0 {
			t.Errorf("tare %s: %+v", strings.Join(args, " "), r)
		}
		return r.Stdout
	}
	project := func(name, service string) []string {
		return []string{"run", "-d", "--name", name, "--label", "com.docker.compose.project=shop", "--label", "com.docker.compose.service=" + service}
	}
	tare(append(project("shop-web-1", "web"), "-p", "127.0.0.1::80", "tools", "tick", "3", "1ms")...)
	tare(append(project("shop-db-1", "db"), "tools", "sleep", "1000")...)
	tare("run", "-d", "--name", "lone", "tools", "sh", "-c", "echo alone; sleep 1000")
	tare("wait", "shop-web-1")

	t.Run("ps as a tree", func(t *testing.T) {
		tree := regexp.MustCompile(`Exited \(0\) .* ago|Up .*?( second| minute)s?`).ReplaceAllString(tare("ps", "-a", "--tree"), "STATE")
		tree = regexp.MustCompile(` {2,}`).ReplaceAllString(tree, "  ")
		lines := strings.Split(strings.TrimSpace(tree), "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(lines[i])
		}
		want := []string{"shop (1 of 2 running)", "├─ shop-db-1  tools  STATE", "└─ shop-web-1  tools  STATE", "no project (1 of 1 running)", "└─ lone  tools  STATE"}
		if !slices.Equal(lines, want) {
			t.Errorf("tree:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
	})
	t.Run("logs of several", func(t *testing.T) {
		got := strings.Split(strings.TrimSpace(tare("logs", "shop-web-1", "lone")), "\n")
		slices.Sort(got)
		want := []string{"lone       | alone", "shop-web-1 | tick 1", "shop-web-1 | tick 2", "shop-web-1 | tick 3"}
		if !slices.Equal(got, want) {
			t.Errorf("%q\nwant %q", got, want)
		}
		if r := e.Tare(nil, "logs", "lone", "nope"); r.Code == 0 || !strings.Contains(r.Stdout, "alone") || !strings.Contains(r.Stderr, "No such container: nope") {
			t.Errorf("with one that is not there: %+v", r)
		}
	})
	t.Run("events as a table", func(t *testing.T) {
		e.Until("the last second's events are past", func() bool {
			return strings.Count(tare("events", "--since", "1h", "--until", "0s", "-f", "event=start"), "start") == 3
		})
		table := tare("events", "--since", "1h", "--until", "0s", "-f", "container=shop-web-1", "--format", "table")
		if !regexp.MustCompile(`^TIME +TYPE +ACTION +NAME +DETAILS\n`).MatchString(table) ||
			!regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  container  die  +shop-web-1  +.*exitCode=0 image=tools$`).MatchString(table) {
			t.Error(table)
		}
	})
	t.Run("a shell in a container without one", func(t *testing.T) {
		out := tare("debug", "--image", "tools", "lone", "sh", "-c", "cat /proc/1/root/etc/hostname; ls /proc/1/root")
		id := tare("inspect", "-f", "{{.Config.Hostname}}", "lone")
		if !strings.HasPrefix(out, id) || !strings.Contains(out, "etc") {
			t.Errorf("sees %q of %s", out, id)
		}
		if r := e.Tare(nil, "debug", "--image", "tools", "shop-web-1"); r.Code == 0 || !strings.Contains(r.Stderr, "container shop-web-1 is not running") {
			t.Errorf("of one that has ended: %+v", r)
		}
		if left := tare("ps", "-aq", "--filter", "label=tare.debug"); left != "" {
			t.Errorf("debug leaves %s", left)
		}
	})
}
