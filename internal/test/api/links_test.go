package api

import (
	"strings"
	"testing"

	"tare/internal/test/harness"
)

// Links: on the default network by the resolver and Docker's variables, on others by the resolver alone.
func TestLinks(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	e.Tools()
	e.Docker("run", "-d", "--name", "db", "--expose", "5432", "--expose", "53/udp", "-e", "USER=me", "tools", "sleep", "1000")
	e.Docker("run", "-d", "--name", "web", "--link", "db", "--link", "db:data-base", "tools", "sleep", "1000")
	address := e.Docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db")
	for _, name := range []string{"db", "data-base", "DB", e.Docker("inspect", "-f", "{{.Config.Hostname}}", "db")} {
		if out := e.Docker("exec", "web", "resolve", name); out != address {
			t.Errorf("%s is %s, want %s", name, out, address)
		}
	}
	if r := e.Try(nil, "exec", "db", "resolve", "web"); r.Code == 0 {
		t.Errorf("the other direction: %+v", r)
	}
	if links := e.Docker("inspect", "-f", "{{.HostConfig.Links}}", "web"); links != "[/db:/web/db /db:/web/data-base]" {
		t.Errorf("inspect tells %s", links)
	}
	env := e.Docker("run", "--rm", "--name", "env", "--link", "db:my-db", "-e", "MY_DB_NAME=mine", "tools", "env")
	for _, want := range []string{"MY_DB_PORT=udp://" + address + ":53", "MY_DB_PORT_5432_TCP=tcp://" + address + ":5432", "MY_DB_PORT_5432_TCP_ADDR=" + address,
		"MY_DB_PORT_5432_TCP_PORT=5432", "MY_DB_PORT_5432_TCP_PROTO=tcp", "MY_DB_NAME=mine", "MY_DB_ENV_USER=me"} {
		if !strings.Contains("\n"+env+"\n", "\n"+want+"\n") {
			t.Errorf("no %s in the environment:\n%s", want, env)
		}
	}
	// The name follows the container, which may get another address and another name.
	e.Docker("stop", "-t", "0", "db")
	e.Docker("run", "-d", "--name", "squatter", "tools", "sleep", "1000")
	e.Docker("rename", "db", "store")
	e.Docker("start", "store")
	if out, now := e.Docker("exec", "web", "resolve", "data-base"), e.Docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "store"); out != now {
		t.Errorf("after its restart it is %s, want %s", out, now)
	}
	e.Restart(true)
	if out, now := e.Docker("exec", "web", "resolve", "data-base"), e.Docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "store"); out != now {
		t.Errorf("after the engine's restart it is %s, want %s", out, now)
	}
	e.Docker("network", "create", "front")
	e.Docker("run", "-d", "--name", "peer", "--network", "front", "tools", "sleep", "1000")
	if out, want := e.Docker("run", "--rm", "--network", "front", "--link", "peer:other", "tools", "resolve", "other"), e.Docker("inspect", "-f", "{{.NetworkSettings.Networks.front.IPAddress}}", "peer"); out != want {
		t.Errorf("on a network of its own it is %s, want %s", out, want)
	}
	e.Docker("stop", "-t", "0", "store")
	for args, want := range map[string]string{
		"--link nope":                "could not get container for nope",
		"--link store:x":             "Cannot link to a non running container: /store AS /",
		"--link peer":                "Cannot link to peer, which is not on the default bridge network",
		"--network host --link peer": "host type networking can't be used with links",
		"--link a:b:c":               "bad format for links: a:b:c",
	} {
		if r := e.Try(nil, append(append([]string{"run", "--rm"}, strings.Fields(args)...), "tools", "true")...); r.Code == 0 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%s: %+v, want %s", args, r, want)
		}
	}
}
