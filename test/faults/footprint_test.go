package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"tare/internal/test/harness"
)

// footprint is all that an engine has on the host, one line each: "mount …", "cgroup …", "link …", "nft …", "process …",
// "file …". Names that differ from one engine process to the next are not part of it.
func footprint(e *harness.Engine) []string {
	list := slices.Concat(mounts(e), cgroups(e), links(e), elements(e), processes(e), tree(e.DataRoot), tree(e.ExecRoot))
	slices.Sort(list)
	return slices.Compact(list)
}

// mounts are the host's mounts below the engine's folder, and in other mount namespaces none is visible to us.
func mounts(e *harness.Engine) []string {
	found, err := e.Host.Mounts()
	if err != nil {
		e.T.Fatal(err)
	}
	var list []string
	for _, m := range found {
		list = append(list, "mount "+m)
	}
	return list
}

func cgroups(e *harness.Engine) []string {
	var list []string
	for _, g := range e.Host.Cgroups() {
		list = append(list, "cgroup "+g)
	}
	return list
}

// links are the engine's bridges and what is plugged into them.
func links(e *harness.Engine) []string {
	all, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) { // other engines are at work
		all, err = netlink.LinkList()
	}
	if err != nil {
		e.T.Fatal(err)
	}
	ours := map[int]bool{}
	var list []string
	for _, l := range all {
		if a := l.Attrs(); strings.Contains(a.Name, e.Host.Instance) || strings.Contains(a.Alias, e.Host.Instance) {
			ours[a.Index] = true
			list = append(list, "link "+l.Type()+" "+a.Name)
		}
	}
	for _, l := range all {
		if a := l.Attrs(); ours[a.MasterIndex] {
			list = append(list, "link "+l.Type()+" "+a.Name)
		}
	}
	return list
}

// elements are those of the sets and maps in the engine's table, and its chains' rules by number.
func elements(e *harness.Engine) []string {
	c, err := nftables.New()
	if err != nil {
		e.T.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil {
		e.T.Fatal(err)
	}
	var list []string
	for _, t := range tables {
		if !strings.Contains(t.Name, e.Host.Instance) {
			continue
		}
		sets, err := c.GetSets(t)
		if err != nil {
			e.T.Fatal(err)
		}
		for _, s := range sets {
			found, err := c.GetSetElements(s)
			if err != nil {
				e.T.Fatal(err)
			}
			for _, x := range found {
				list = append(list, fmt.Sprintf("nft %s %s %x", t.Name, s.Name, x.Key))
			}
		}
		chains, err := c.ListChainsOfTableFamily(t.Family)
		if err != nil {
			e.T.Fatal(err)
		}
		for _, ch := range chains {
			if ch.Table.Name != t.Name {
				continue
			}
			rules, err := c.GetRules(t, ch)
			if err != nil {
				e.T.Fatal(err)
			}
			list = append(list, fmt.Sprintf("nft %s %s: %d rules", t.Name, ch.Name, len(rules)))
		}
	}
	return list
}

// processes are those in the engine's cgroups, those of its name, and the namespaces that the engine and its
// supervisor keep open.
func processes(e *harness.Engine) []string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		e.T.Fatal(err)
	}
	own := []int{e.Pid(), e.Host.SupervisorPid()}
	var list []string
	for _, d := range entries {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || slices.Contains(own, pid) {
			continue
		}
		group, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cgroup"))
		args, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		line := strings.ReplaceAll(string(args), "\x00", " ")
		if strings.Contains(string(group), "/tare/"+e.Host.Instance) || strings.HasPrefix(line, "tare-run ") && strings.Contains(line, e.Host.Instance) {
			list = append(list, "process "+line)
		}
	}
	for _, pid := range own {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, f := range fds {
			to, _ := os.Readlink(f)
			for _, kind := range []string{"net", "mnt", "pid", "uts", "ipc", "cgroup"} {
				if strings.HasPrefix(to, kind+":[") {
					host, _ := os.Readlink("/proc/self/ns/" + kind)
					if to != host {
						list = append(list, "process holds namespace "+to)
					}
				}
			}
		}
	}
	return list
}

// tree lists files below a root; of a layer, a container's files and a cache mount only the folder.
func tree(root string) []string {
	var list []string
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return nil
		}
		switch parts := strings.Split(rel, string(filepath.Separator)); {
		case settling(root, parts):
			return nil
		case len(parts) == 3 && parts[0] == "layers" && parts[2] == "fs",
			len(parts) == 3 && parts[0] == "containers" && (parts[2] == "upper" || parts[2] == "work"),
			len(parts) == 3 && parts[0] == "volumes":
			list = append(list, "file "+rel)
			return fs.SkipDir
		case rel == "supervisor.log":
			return nil
		}
		list = append(list, "file "+rel)
		return nil
	})
	return list
}

// settling tells whether a file is the mark of a blob or layer that is there: it goes when the disk has the data.
func settling(root string, parts []string) bool {
	name := parts[len(parts)-1]
	if len(parts) < 3 || parts[len(parts)-2] != "unsettled" {
		return false
	}
	for _, target := range []string{filepath.Join("images", "blobs", strings.ReplaceAll(name, "-", "/")), filepath.Join("layers", name)} {
		if _, err := os.Stat(filepath.Join(root, target)); err == nil {
			return true
		}
	}
	return false
}

// fresh is what of now was not there before.
func fresh(before, now []string) []string {
	return slices.DeleteFunc(slices.Clone(now), func(s string) bool { return slices.Contains(before, s) })
}

// nothingNew waits until the engine has nothing that it did not have before: the last of what is removed after an answer goes
// in the background.
func nothingNew(e *harness.Engine, what string, before []string) {
	e.T.Helper()
	var left []string
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if left = fresh(before, footprint(e)); len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			e.T.Errorf("%s leaves %d things:\n\t%s", what, len(left), strings.Join(left[:min(len(left), 12)], "\n\t"))
			return
		}
	}
	if gone := fresh(footprint(e), before); len(gone) > 0 {
		e.T.Errorf("%s takes away:\n\t%s", what, strings.Join(gone, "\n\t"))
	}
}
