package scripts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tare/internal/test/harness"
)

const fakePlugin = `#!/bin/sh
echo "$DOCKER_HOST|$DOCKER_CONTEXT|$DOCKER_CONFIG|$*"
`

// The stock client's plugins work under tare: they get the arguments from their name on and the engine that tare goes to.
func TestPlugins(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	config := filepath.Join(e.Dir, "client")
	if err := os.MkdirAll(filepath.Join(config, "cli-plugins"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "cli-plugins", "docker-compose"), []byte(fakePlugin), 0o755); err != nil {
		t.Fatal(err)
	}
	host := "unix://" + e.Socket
	for args, want := range map[string]string{
		"compose -f x up --build":   host + "||" + config + "|compose -f x up --build\n",
		"-H unix:///x compose ls":   "unix:///x||" + config + "|compose ls\n",
		"compose --help":            host + "||" + config + "|compose --help\n",
		"-H unix:///x compose -H y": "unix:///x||" + config + "|compose -H y\n",
	} {
		if r := e.Tare(nil, strings.Fields(args)...); r.Code != 0 || r.Stdout != want {
			t.Errorf("tare %s: %+v, want %s", args, r, want)
		}
	}
	e.Docker("context", "create", "far", "--docker", "host=tcp://far:1")
	if r := e.Tare(nil, "--context", "far", "compose", "ps"); r.Stdout != "|far|"+config+"|compose ps\n" {
		t.Errorf("with a context: %+v", r)
	}
	if r := e.Tare(nil, "nosuch"); r.Code != 1 || !strings.Contains(r.Stderr, "unknown command: tare nosuch") {
		t.Errorf("without a plugin: %+v", r)
	}
}
