package scripts

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// absent are flags of the stock client that tare has not, each with its reason. A key is a flag, or command and flag.
var absent = map[string]string{
	"--cpu-count":                 "Windows",
	"--cpu-percent":               "Windows",
	"--io-maxbandwidth":           "Windows",
	"--io-maxiops":                "Windows",
	"--checkpoint":                "checkpoints are no part of Tare",
	"--checkpoint-dir":            "checkpoints are no part of Tare",
	"--cluster":                   "volumes of a Swarm cluster",
	"volume --availability":       "volumes of a Swarm cluster",
	"volume --group":              "volumes of a Swarm cluster",
	"volume --limit-bytes":        "volumes of a Swarm cluster",
	"volume --required-bytes":     "volumes of a Swarm cluster",
	"volume --scope":              "volumes of a Swarm cluster",
	"volume --secret":             "volumes of a Swarm cluster",
	"volume --sharing":            "volumes of a Swarm cluster",
	"volume --topology-preferred": "volumes of a Swarm cluster",
	"volume --topology-required":  "volumes of a Swarm cluster",
	"volume --type":               "volumes of a Swarm cluster",
	"--tree":                      "shows the platforms of an image, of which the store keeps one",
	"--log-level":                 "the client logs nothing; -D prints requests",
}

// missing are commands of the stock client that tare has not.
var missing = map[string]string{
	"checkpoint": "checkpoints are no part of Tare", "search": "a service of one registry",
	"manifest": "not yet", "plugin": "no plugins", "trust": "content trust",
	"config": "Swarm", "node": "Swarm", "secret": "Swarm", "service": "Swarm", "stack": "Swarm", "swarm": "Swarm", "volume update": "Swarm",
	"buildx": "a plugin", "compose": "a plugin",
}

var (
	flagLine    = regexp.MustCompile(`(?m)^ {2,6}(?:(-\w), )?(--[\w-]+)`)
	commandLine = regexp.MustCompile(`(?m)^  ([a-z][a-z-]*)\*? +[A-Z]`)
)

// Every command and flag that `docker --help` shows, all the way down, is there in tare under the same long and short name.
func TestFlagsOfTheStockClient(t *testing.T) {
	t.Parallel()
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal("this test needs the stock docker command line: test/deps.sh installs it")
	}
	tare := harness.Programs(t) + "/tare"
	help := func(program string, command ...string) string {
		cmd := exec.Command(program, append(slices.Clone(command), "--help")...)
		cmd.Env = append(cmd.Environ(), "DOCKER_BUILDKIT=0", "DOCKER_CLI_HINTS=false")
		out, err := cmd.Output()
		if err != nil {
			return ""
		}
		return string(out)
	}
	var walk func(command ...string)
	walk = func(command ...string) {
		name := strings.Join(command, " ")
		want, got := help(docker, command...), help(tare, command...)
		if first, _, _ := strings.Cut(got, "\n"); len(command) > 0 && !strings.HasPrefix(first, "Usage:  tare "+name) {
			t.Errorf("tare %s: no such command (%q)", name, first)
			return
		}
		has := map[string]bool{}
		for _, m := range flagLine.FindAllStringSubmatch(got, -1) {
			has[m[2]] = true
			has[m[1]+m[2]] = true
		}
		for _, m := range flagLine.FindAllStringSubmatch(want, -1) {
			short, long := m[1], m[2]
			group, _, _ := strings.Cut(name, " ")
			if absent[long] != "" || absent[group+" "+long] != "" || has[short+long] {
				continue
			}
			// One that is accepted but not shown is there.
			probe := append(slices.Clone(command), long+"=true", "--help")
			if out, _ := exec.Command(tare, probe...).CombinedOutput(); short == "" && !strings.Contains(string(out), "unknown flag") {
				continue
			}
			t.Errorf("tare %s: no %s %s", name, short, long)
		}
		for _, m := range commandLine.FindAllStringSubmatch(want, -1) {
			sub := append(slices.Clone(command), m[1])
			if missing[m[1]] == "" && missing[strings.Join(sub, " ")] == "" {
				walk(sub...)
			}
		}
	}
	walk()
}
