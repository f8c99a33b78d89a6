package container

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// environment joins env files and --env; a name without value takes this process's, and is left out if there is none.
func environment(env, files []string) ([]string, error) {
	out, err := linesOf(files, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	for _, e := range env {
		name, _, withValue := strings.Cut(e, "=")
		if !withValue {
			v, ok := os.LookupEnv(name)
			if !ok {
				out = append(out, name)
				continue
			}
			e = name + "=" + v
		}
		out = append(out, e)
	}
	return out, nil
}

// linesOf reads files of KEY=VALUE lines, # starts a comment line. A key without value is looked up, if lookup is given.
func linesOf(files []string, lookup func(string) (string, bool)) ([]string, error) {
	var out []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		sc := bufio.NewScanner(f)
		for n := 1; sc.Scan(); n++ {
			line := strings.TrimLeft(strings.TrimPrefix(sc.Text(), "\ufeff"), " \t")
			if line == "" || line[0] == '#' {
				continue
			}
			key, _, withValue := strings.Cut(line, "=")
			switch {
			case key == "":
				return nil, fmt.Errorf("invalid env file (%s): line %d: no variable name on line '%s'", name, n, line)
			case strings.ContainsAny(key, " \t"):
				return nil, fmt.Errorf("invalid env file (%s): variable '%s' contains whitespaces", name, key)
			}
			if !withValue && lookup != nil {
				v, ok := lookup(key)
				if !ok {
					continue
				}
				line = key + "=" + v
			}
			out = append(out, line)
		}
		if err := sc.Err(); err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", name, err)
		}
	}
	return out, nil
}
