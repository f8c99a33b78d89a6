package api

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"tare/internal/test/harness"
)

// TestVersions reads everything in all versions; the proxy holds each answer against its own version's description.
func TestVersions(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	e.Docker("network", "create", "net1")
	e.Docker("run", "-d", "--name", "run1", "--network", "net1", "-p", "127.0.0.1::80", "-v", "vol:/v", "--health-cmd", "true", image, "sleep", "1000")
	e.Docker("run", "--name", "old1", image, "echo", "hi")
	id := e.Docker("inspect", "-f", "{{.Id}}", "run1")
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", e.Socket)
	}}}
	defer hc.CloseIdleConnections()
	now := time.Now().Unix()
	for minor := 24; minor <= 56; minor++ {
		for _, path := range []string{
			"/_ping", "/version", "/info", "/system/df", fmt.Sprintf("/events?since=1&until=%d", now) + "&filters=%7B%22type%22%3A%5B%22container%22%2C%22image%22%5D%7D",
			"/containers/json?all=1&size=1", "/containers/run1/json?size=1", "/containers/old1/json", "/containers/run1/top", "/containers/old1/changes",
			"/containers/run1/stats?stream=0&one-shot=1", "/containers/nosuch/json", "/containers/" + id + "/json",
			"/images/json", "/images/tools/json", "/images/tools/history", "/images/nosuch/json",
			"/networks", "/networks/net1", "/networks/bridge", "/volumes", "/volumes/vol", "/plugins", "/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs",
		} {
			res, err := hc.Get(fmt.Sprintf("http://tare/v1.%d%s", minor, path))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode == 500 {
				t.Errorf("v1.%d%s: %d %s %v", minor, path, res.StatusCode, body, err)
			}
		}
	}
}

// TestClient runs a container with Docker's Go client in the newest version.
func TestClient(t *testing.T) {
	e := harness.Start(t)
	image := e.Tools()
	ctx, c := t.Context(), e.Client
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.NetworkCreate(ctx, "net1", client.NetworkCreateOptions{Labels: map[string]string{"a": "b"}})
	must(err)
	made, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name:             "c1",
		Config:           &container.Config{Image: image, Cmd: []string{"cat"}, OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true},
		HostConfig:       &container.HostConfig{NetworkMode: "net1"},
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"net1": {Aliases: []string{"www"}}}},
	})
	must(err)
	stream, err := c.ContainerAttach(ctx, made.ID, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	must(err)
	defer stream.Close()
	wait := c.ContainerWait(ctx, made.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	_, err = c.ContainerStart(ctx, made.ID, client.ContainerStartOptions{})
	must(err)
	_, err = io.WriteString(stream.Conn, "through and back")
	must(err)
	must(stream.CloseWrite())
	var out, errs strings.Builder
	if _, err := stdcopy.StdCopy(&out, &errs, stream.Reader); err != nil || out.String() != "through and back" {
		t.Errorf("attached: %q %q %v", out.String(), errs.String(), err)
	}
	select {
	case res := <-wait.Result:
		if res.StatusCode != 0 {
			t.Errorf("exit code %d", res.StatusCode)
		}
	case err := <-wait.Error:
		t.Error(err)
	}
	inspected, err := c.ContainerInspect(ctx, "c1", client.ContainerInspectOptions{Size: true})
	must(err)
	if inspected.Container.State.Status != container.StateExited {
		t.Errorf("state %+v", inspected.Container.State)
	}
	_, err = c.DiskUsage(ctx, client.DiskUsageOptions{Containers: true, Images: true, Volumes: true, BuildCache: true, Verbose: true})
	must(err)
	_, err = c.Info(ctx, client.InfoOptions{})
	must(err)
	_, err = c.ServerVersion(ctx, client.ServerVersionOptions{})
	must(err)
	_, err = c.ImageAttestations(ctx, image)
	must(err)
	_, err = c.DistributionInspect(ctx, e.Registry()+"/tools", client.DistributionInspectOptions{})
	must(err)
	_, err = c.PluginList(ctx, client.PluginListOptions{})
	must(err)
	if _, err := c.SwarmInspect(ctx, client.SwarmInspectOptions{}); err == nil || !strings.Contains(err.Error(), "not a swarm manager") {
		t.Errorf("swarm: %v", err)
	}
	_, err = c.ContainerRemove(ctx, "c1", client.ContainerRemoveOptions{})
	must(err)
	_, err = c.NetworkPrune(ctx, client.NetworkPruneOptions{})
	must(err)
}
