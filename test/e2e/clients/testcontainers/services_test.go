// Package services tests an engine as testcontainers-go uses it. It is a module of its own, made by 06-clients.sh.
package services

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"
)

func start(t *testing.T, req testcontainers.ContainerRequest) testcontainers.Container {
	t.Helper()
	c, err := testcontainers.GenericContainer(t.Context(), testcontainers.GenericContainerRequest{ContainerRequest: req, Started: true})
	testcontainers.CleanupContainer(t, c)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRedis(t *testing.T) {
	ctx := t.Context()
	net1, err := network.New(ctx)
	testcontainers.CleanupNetwork(t, net1)
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, testcontainers.ContainerRequest{
		Image: os.Getenv("SERVICES"), Cmd: []string{"redis-server", "--bind", "0.0.0.0", "--protected-mode", "no"}, ExposedPorts: []string{"6379/tcp"},
		Networks: []string{net1.Name}, NetworkAliases: map[string][]string{net1.Name: {"cache"}},
		WaitingFor: wait.ForAll(wait.ForLog("Ready to accept connections"), wait.ForListeningPort("6379/tcp")),
	})
	address, err := c.PortEndpoint(ctx, "6379/tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "PING\r\n")
	answer := make([]byte, 7)
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "+PONG\r\n" {
		t.Errorf("%q, %v", answer, err)
	}
	code, out, err := c.Exec(ctx, []string{"redis-cli", "-h", "cache", "set", "a", "b"})
	text, _ := io.ReadAll(out)
	if err != nil || code != 0 || !strings.Contains(string(text), "OK") {
		t.Errorf("exec: %d %s %v", code, text, err)
	}
	if err := c.CopyToContainer(ctx, []byte("copied"), "/tmp/file", 0o600); err != nil {
		t.Error(err)
	}
	r, err := c.CopyFileFromContainer(ctx, "/tmp/file")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if back, _ := io.ReadAll(r); string(back) != "copied" {
		t.Errorf("the file came back as %q", back)
	}
}

func TestPostgres(t *testing.T) {
	ctx := context.Background()
	c := start(t, testcontainers.ContainerRequest{
		Image: os.Getenv("SERVICES"), Cmd: []string{"start-postgres"}, ExposedPorts: []string{"5432/tcp"},
		Tmpfs:      map[string]string{"/var/lib/postgresql/data": "rw,mode=1777"},
		WaitingFor: wait.ForLog("database system is ready to accept connections").WithOccurrence(1).WithStartupTimeout(time.Minute),
	})
	code, out, err := c.Exec(ctx, []string{"psql", "-h", "127.0.0.1", "-U", "postgres", "-tAc", "select 6 * 7"})
	text, _ := io.ReadAll(out)
	if err != nil || code != 0 || !strings.Contains(string(text), "42") {
		t.Errorf("psql: %d %s %v", code, text, err)
	}
	if err := c.Stop(ctx, nil); err != nil {
		t.Error(err)
	}
	state, err := c.State(ctx)
	if err != nil || state.Running {
		t.Errorf("after the stop: %+v %v", state, err)
	}
}
