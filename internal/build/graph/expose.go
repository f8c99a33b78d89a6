package graph

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// expose reads port[-port][/proto] words; a host part ("8080:80") is dropped, as in Docker.
func (b *builder) expose(s *stage, c *instructions.ExposeCommand) (string, error) {
	var ports []string
	for _, p := range c.Ports {
		words, err := b.lex.ProcessWords(p, s.env)
		if err != nil {
			return "", err
		}
		for _, w := range words {
			some, err := portRange(w)
			if err != nil {
				return "", err
			}
			ports = append(ports, some...)
		}
	}
	if s.Config.Config.ExposedPorts == nil {
		s.Config.Config.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range ports {
		s.Config.Config.ExposedPorts[p] = struct{}{}
	}
	return fmt.Sprintf("EXPOSE %v", ports), nil
}

func portRange(word string) ([]string, error) {
	rest := word[strings.LastIndexByte(word, ':')+1:]
	span, proto, _ := strings.Cut(rest, "/")
	switch proto = strings.ToLower(proto); proto {
	case "":
		proto = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return nil, fmt.Errorf("invalid port: %q: invalid proto: %s", word, proto)
	}
	first, last, ranged := strings.Cut(span, "-")
	if !ranged {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || to < from {
		return nil, fmt.Errorf("invalid containerPort: %s", span)
	}
	var ports []string
	for p := from; p <= to; p++ {
		ports = append(ports, strconv.FormatUint(p, 10)+"/"+proto)
	}
	return ports, nil
}
