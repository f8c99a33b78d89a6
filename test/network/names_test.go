package network

import (
	"slices"
	"strings"
	"testing"
)

// TestNamesResolve is what a user-defined network is for.
func TestNamesResolve(t *testing.T) {
	e := start(t)
	e.Docker("network", "create", "front")
	e.Docker("network", "create", "back")
	serve(e, "web", "--network", "front", "--network-alias", "www")
	idle(e, "shell", "--network", "front")
	idle(e, "other", "--network", "back")
	web := address(e, "web", "front")

	id := e.Docker("inspect", "-f", "{{.Id}}", "web")
	for _, name := range []string{"web", "www", "WEB", "web.front", id[:12]} {
		if got := resolve(e, "shell", name); !slices.Equal(got, []string{web}) {
			t.Errorf("%s resolves to %v, want %s", name, got, web)
		}
		if got := wget(e, "shell", "http://"+name+"/"); got != "web" {
			t.Errorf("http://%s/ answers %q", name, got)
		}
	}
	if out := e.Try(nil, "exec", "shell", "nslookup", web).Stdout; !strings.Contains(out, "name = web.front") {
		t.Errorf("reverse: %s", out)
	}
	if got := resolve(e, "other", "web"); got != nil {
		t.Errorf("web resolves to %v on a network that it is not on", got)
	}

	// A live container's files are rewritten, the same files: they are mounted.
	inode := in(e, "other", "stat", "-c", "%i", "/etc/hosts")
	e.Docker("network", "connect", "--alias", "second", "front", "other")
	if got := wget(e, "other", "http://web/"); got != "web" {
		t.Errorf("after connect: %q", got)
	}
	if got, want := resolve(e, "shell", "second"), address(e, "other", "front"); !slices.Equal(got, []string{want}) {
		t.Errorf("second resolves to %v, want %s", got, want)
	}
	hosts := in(e, "other", "cat", "/etc/hosts")
	for _, n := range []string{"front", "back"} {
		if a := address(e, "other", n); !strings.Contains(hosts, a+"\t") {
			t.Errorf("hosts lacks %s on %s:\n%s", a, n, hosts)
		}
	}
	if now := in(e, "other", "stat", "-c", "%i", "/etc/hosts"); now != inode {
		t.Errorf("hosts is another file: inode %s, was %s", now, inode)
	}
	front := address(e, "other", "front")
	e.Docker("network", "disconnect", "front", "other")
	if hosts := in(e, "other", "cat", "/etc/hosts"); strings.Contains(hosts, front+"\t") {
		t.Errorf("hosts after disconnect:\n%s", hosts)
	}
	if got := resolve(e, "shell", "second"); got != nil {
		t.Errorf("second resolves to %v after disconnect", got)
	}

	e.Docker("rename", "web", "shop")
	if got := resolve(e, "shell", "shop"); !slices.Equal(got, []string{web}) {
		t.Errorf("new name resolves to %v", got)
	}
	e.Docker("stop", "shop")
	if got := resolve(e, "shell", "shop"); got != nil {
		t.Errorf("a stopped container's name resolves to %v", got)
	}
}

// TestResolvConfFollows: resolv.conf follows when a container gets its first user-defined network.
func TestResolvConfFollows(t *testing.T) {
	e := start(t)
	e.Docker("network", "create", "n1")
	idle(e, "box", "--dns", "192.0.2.53")
	if conf := in(e, "box", "cat", "/etc/resolv.conf"); !strings.Contains(conf, "nameserver 192.0.2.53") {
		t.Errorf("on the default bridge:\n%s", conf)
	}
	e.Docker("network", "connect", "n1", "box")
	if conf := in(e, "box", "cat", "/etc/resolv.conf"); !strings.Contains(conf, "nameserver 127.0.0.11") {
		t.Errorf("on n1 too:\n%s", conf)
	}
	if got := resolve(e, "box", "box"); !slices.Equal(got, []string{address(e, "box", "n1")}) {
		t.Errorf("own name resolves to %v", got)
	}
	e.Docker("network", "disconnect", "n1", "box")
	if conf := in(e, "box", "cat", "/etc/resolv.conf"); !strings.Contains(conf, "nameserver 192.0.2.53") {
		t.Errorf("off n1 again:\n%s", conf)
	}
}

// TestOwnPort53: a container is free to be a name server itself.
func TestOwnPort53(t *testing.T) {
	e := start(t)
	e.Docker("network", "create", "n1")
	serve(e, "web", "--network", "n1")
	idle(e, "dns", "--network", "n1")
	echoUDP(e, "dns", 53, "own")
	e.Docker("exec", "-d", "dns", "httpd", "-f", "-p", "0.0.0.0:53", "-h", "/www")
	e.Until("listening on 53/tcp", func() bool {
		return strings.Contains(e.Try(nil, "exec", "dns", "netstat", "-ltn").Stdout, "0.0.0.0:53")
	})
	if got := wget(e, "dns", "http://web/"); got != "web" {
		t.Errorf("names beside a name server of its own: %q", got)
	}
	idle(e, "asker", "--network", "n1")
	if out := e.Try(nil, "exec", "asker", "timeout", "1", "nslookup", "web", "dns").Stdout; strings.Contains(out, "Name:") {
		t.Errorf("the container's own server is not what answers at its address:\n%s", out)
	}
}

func TestFilesOfTheContainer(t *testing.T) {
	e := start(t)
	idle(e, "first", "--hostname", "host-a", "--domainname", "example.org", "--add-host", "db:192.0.2.7", "--add-host", "gw:host-gateway")
	hosts := in(e, "first", "cat", "/etc/hosts")
	gateway := e.Docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
	for _, line := range []string{"192.0.2.7\tdb\n", gateway + "\tgw\n", address(e, "first", "bridge") + "\thost-a.example.org host-a"} {
		if strings.Count(hosts+"\n", line) != 1 {
			t.Errorf("hosts has not one line %q:\n%s", line, hosts)
		}
	}
	// Who shares the namespace shares the files.
	idle(e, "second", "--network", "container:first")
	if got := in(e, "second", "cat", "/etc/hosts"); got != hosts {
		t.Errorf("hosts of --network container:first:\n%s", got)
	}
	e.Docker("network", "create", "n1")
	e.Docker("network", "connect", "n1", "first")
	if got := in(e, "second", "cat", "/etc/hosts"); !strings.Contains(got, address(e, "first", "n1")) || strings.Count(got, "\tdb\n") != 1 {
		t.Errorf("after connect, the second sees:\n%s", got)
	}
	// Nothing but loopback, which is up.
	idle(e, "alone", "--network", "none")
	if out := in(e, "alone", "ip", "-4", "addr"); !strings.Contains(out, "127.0.0.1/8") || !strings.Contains(out, "UP") || strings.Contains(out, "eth") {
		t.Errorf("--network none:\n%s", out)
	}
}
