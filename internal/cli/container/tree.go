package container

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/moby/moby/api/types/container"
)

// The labels that Compose puts on its containers.
const (
	projectLabel = "com.docker.compose.project"
	serviceLabel = "com.docker.compose.service"
)

// printTree shows containers below their Compose projects, those of none at the end.
func printTree(w io.Writer, all []container.Summary) error {
	projects := map[string][]container.Summary{}
	for _, s := range all {
		p := s.Labels[projectLabel]
		projects[p] = append(projects[p], s)
	}
	var names []string
	for p := range projects {
		names = append(names, p)
	}
	slices.SortFunc(names, func(a, b string) int {
		if (a == "") != (b == "") {
			return strings.Compare(b, a) // no project: last
		}
		return strings.Compare(a, b)
	})
	tw := tabwriter.NewWriter(w, 0, 1, 3, ' ', 0)
	for _, p := range names {
		members := projects[p]
		running := 0
		for _, s := range members {
			if s.State == container.StateRunning {
				running++
			}
		}
		fmt.Fprintf(tw, "%s (%d of %d running)\n", cmp.Or(p, "no project"), running, len(members))
		slices.SortFunc(members, func(a, b container.Summary) int {
			return cmp.Or(strings.Compare(a.Labels[serviceLabel], b.Labels[serviceLabel]), strings.Compare(firstName(a), firstName(b)))
		})
		for i, s := range members {
			branch := "├─ "
			if i == len(members)-1 {
				branch = "└─ "
			}
			fmt.Fprintf(tw, "%s%s\t%s\t%s\t%s\n", branch, firstName(s), s.Image, s.Status, Ports(s.Ports))
		}
	}
	return tw.Flush()
}

func firstName(s container.Summary) string {
	if len(s.Names) == 0 {
		return s.ID[:min(12, len(s.ID))]
	}
	return strings.TrimPrefix(s.Names[0], "/")
}
