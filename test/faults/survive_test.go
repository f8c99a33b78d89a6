package faults

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"tare/internal/test/harness"
)

// TestContainersSurviveTheEngine kills the engine under twenty containers that each print a numbered line every 10 ms.
func TestContainersSurviveTheEngine(t *testing.T) {
	e := start(t)
	image := e.Tools()
	clean := footprint(e)
	const n = 20
	name := func(i int) string { return fmt.Sprintf("tick%02d", i) }
	// What they are, besides printing.
	args := map[int][]string{
		1: {"--restart", "on-failure:3"}, 2: {"--restart", "unless-stopped"}, 3: {"--restart", "always"}, 4: {"--restart", "no"},
		5: {"--restart", "always"}, 6: {"--restart", "unless-stopped"}, 7: {"--rm"},
	}
	command := map[int]string{ // these end by themselves, most of them while there is no engine
		8: "tick 40 10ms; exit 3", 9: "tick 60 10ms; exit 0", 10: "tick 80 10ms; exit 42", 11: "tick 100 10ms; nosuch",
	}
	pids := map[int]int{}
	for i := range n {
		cmd := append([]string{"run", "-d", "--name", name(i)}, args[i]...)
		cmd = append(cmd, image)
		if script := command[i]; script != "" {
			cmd = append(cmd, "sh", "-c", script)
		} else {
			cmd = append(cmd, "tick", "0", "10ms")
		}
		e.Docker(cmd...)
		pids[i] = pid(e, name(i))
	}
	e.Docker("exec", "-d", name(19), "sleep", "1000")
	e.Docker("stop", "-s", "KILL", name(5), name(6)) // by hand: always comes back with the engine, unless-stopped does not
	waiter := e.Client.ContainerWait(limited(t), name(18), client.ContainerWaitOptions{})
	followed := begin(e, nil, "logs", "-f", name(18))

	e.Kill()
	select {
	case err := <-waiter.Error:
		if err == nil {
			t.Error("a waiter's connection ended without an error")
		}
	case r := <-waiter.Result:
		t.Errorf("a killed engine answered: %+v", r)
	}
	followed.Wait()
	for _, i := range []int{1, 2, 3, 4, 7} {
		syscall.Kill(pids[i], syscall.SIGKILL)
	}
	for _, i := range []int{1, 2, 3, 4, 7, 8, 9, 10, 11} {
		ended(t, pids[i])
	}
	relaunch(e)

	for i := range n {
		switch i {
		case 1, 2, 3: // died: their policies want them back
			e.Until(name(i)+"'s restart", func() bool {
				s := state(e, name(i))
				return s.Status == "running" && s.Pid != pids[i]
			})
		case 5:
			e.Until(name(i)+"'s return", func() bool { return state(e, name(i)).Status == "running" })
		case 4, 6, 8, 9, 10, 11:
			want := map[int]int{4: 137, 6: 137, 8: 3, 9: 0, 10: 42, 11: 127}[i]
			e.Until(name(i)+"'s end", func() bool { return state(e, name(i)).Status == "exited" })
			if s := state(e, name(i)); s.ExitCode != want || s.Pid != 0 {
				t.Errorf("%s: %+v, want exit code %d", name(i), s, want)
			}
		case 7:
			e.Until(name(i)+"'s removal", func() bool { return e.Try(nil, "inspect", name(i)).Code == 1 })
		default:
			if got := pid(e, name(i)); got != pids[i] {
				t.Errorf("%s: pid %d, was %d", name(i), got, pids[i])
			}
		}
	}
	if top := e.Docker("top", name(19)); !strings.Contains(top, "sleep 1000") {
		t.Errorf("an exec did not survive: %s", top)
	}
	if out := e.Docker("exec", name(19), "echo", "again"); out != "again" {
		t.Errorf("exec: %q", out)
	}
	// Killed twice more, once while it recovers.
	e.Kill()
	relaunch(e)
	e.Kill()
	relaunch(e)

	// Waiters and followers of the logs get what comes, with what went before.
	waiter = e.Client.ContainerWait(limited(t), name(18), client.ContainerWaitOptions{})
	again := begin(e, nil, "logs", "-f", name(18))
	before := strings.Count(followed.out.String(), "\n")
	e.Until("lines after the restart", func() bool { return strings.Count(e.Docker("logs", name(18)), "\n") > before+50 })
	e.Docker("kill", "-s", "KILL", name(18))
	select {
	case r := <-waiter.Result:
		if r.StatusCode != 137 {
			t.Errorf("wait: %+v", r)
		}
	case err := <-waiter.Error:
		t.Errorf("wait: %v", err)
	}
	if err := again.Wait(); err != nil {
		t.Errorf("logs -f: %v", err)
	}
	if a, b := followed.out.String(), again.out.String(); !strings.HasPrefix(b, strings.TrimSuffix(a, "\n")) {
		t.Errorf("the logs of before are not the beginning of the logs of after")
	}

	var wg sync.WaitGroup
	for i := range n {
		if i == 7 {
			continue
		}
		wg.Go(func() {
			if r := e.Try(nil, "stop", "-t", "1", name(i)); r.Code != 0 {
				t.Errorf("stop %s: %+v", name(i), r)
			}
		})
	}
	wg.Wait()
	for i := range n {
		if i == 7 {
			continue
		}
		runs := numbered(t, name(i), e.Docker("logs", name(i)))
		want := 1
		if i >= 1 && i <= 3 || i == 5 {
			want = 2
		}
		if len(runs) != want {
			t.Errorf("%s ran %d times, by its log %v, want %d", name(i), len(runs), runs, want)
		}
		if script := command[i]; script != "" {
			if count, _ := strconv.Atoi(strings.Fields(script)[1]); runs[0] != count {
				t.Errorf("%s printed %d lines, its log has %d", name(i), count, runs[0])
			}
		}
		e.Docker("rm", name(i))
	}
	nothingNew(e, "twenty containers and three kills", clean)
}

// numbered checks that lines are counted from 1 without gap or repeat, and returns how far each run came.
func numbered(t *testing.T, name, log string) []int {
	t.Helper()
	var runs []int
	sc := bufio.NewScanner(bytes.NewBufferString(log))
	for sc.Scan() {
		var k int
		if _, err := fmt.Sscanf(sc.Text(), "tick %d", &k); err != nil {
			t.Errorf("%s: line %q", name, sc.Text())
			return runs
		}
		switch {
		case k == 1:
			runs = append(runs, 1)
		case len(runs) > 0 && k == runs[len(runs)-1]+1:
			runs[len(runs)-1] = k
		default:
			t.Errorf("%s: line %d comes after %v", name, k, runs)
			return runs
		}
	}
	return runs
}

func state(e *harness.Engine, name string) container.State {
	e.T.Helper()
	r, err := e.Client.ContainerInspect(limited(e.T), name, client.ContainerInspectOptions{})
	if err != nil {
		e.T.Fatal(err)
	}
	return *r.Container.State
}

func pid(e *harness.Engine, name string) int {
	e.T.Helper()
	return state(e, name).Pid
}

// ended waits for the end of a process that is not ours.
func ended(t *testing.T, pid int) {
	t.Helper()
	fd, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	defer fd.Release()
	for deadline := time.Now().Add(20 * time.Second); fd.Signal(syscall.Signal(0)) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not end", pid)
		}
	}
}

// TestDamagedRecord damages the record of one of two containers: the engine starts, has the other, and says which it can't load.
func TestDamagedRecord(t *testing.T) {
	e := start(t)
	image := e.Tools()
	clean := footprint(e)
	id := e.Docker("create", "--name", "damaged", image)
	e.Docker("run", "-d", "--name", "whole", image, "sleep", "1000")
	for _, content := range []string{"", "{", "{}", "null"} {
		e.Kill()
		record := filepath.Join(e.DataRoot, "containers", id, "record.json")
		if err := os.WriteFile(record, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		relaunch(e)
		if s := state(e, "whole"); s.Status != "running" {
			t.Errorf("the other container: %+v", s)
		}
		if got := e.Try(nil, "inspect", "damaged"); got.Code != 1 {
			t.Errorf("a container with the record %q: %+v", content, got)
		}
		if !strings.Contains(e.Log(), id) || !strings.Contains(e.Log(), "cannot load a container") {
			t.Errorf("the engine's log does not tell of the record %q", content)
		}
		if _, err := os.Stat(record); err != nil {
			t.Errorf("the container's files are gone: %v", err)
		}
	}
	e.Docker("rm", "-f", "whole")
	if err := os.RemoveAll(filepath.Join(e.DataRoot, "containers", id)); err != nil {
		t.Fatal(err)
	}
	nothingNew(e, "a damaged record", clean)
}
