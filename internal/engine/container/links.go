package container

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"tare/internal/base/fault"
	"tare/internal/base/ids"
)

// Links (--link NAME:ALIAS) are names that one container knows another by. The record has them as "ID:ALIAS", so
// that renames don't matter. The names are answered by the resolver in the container, with the address that the other one has at
// that moment; on the default network the variables that Docker sets at the start are there too.

// resolveLinks replaces names by ids.
func (c *creation) resolveLinks(h *container.HostConfig) error {
	if len(h.Links) == 0 {
		return nil
	}
	if h.NetworkMode.IsHost() || h.NetworkMode.IsContainer() || h.NetworkMode.IsNone() {
		return fault.Invalid("conflicting options: %s type networking can't be used with links. This would result in undefined behavior", h.NetworkMode.NetworkName())
	}
	links := make([]string, len(h.Links))
	for i, l := range h.Links {
		ref, alias, found := strings.Cut(l, ":")
		if ref = strings.TrimPrefix(ref, "/"); !found {
			alias = ref
		}
		alias = alias[strings.LastIndexByte(alias, '/')+1:] // "/web/db" is how inspect tells it
		if ref == "" || alias == "" || strings.Contains(alias, ":") {
			return fault.Invalid("bad format for links: %s", l)
		}
		e, err := c.index.find(ref)
		if err != nil {
			// Not NotFound: the stock client would pull the image and try again.
			return fault.Invalid("could not get container for %s: %s", ref, err)
		}
		links[i] = e.id + ":" + alias
	}
	h.Links = links
	return nil
}

// link is one of a container's links.
type link struct {
	alias string
	to    record
}

// links looks up whom a container is linked to. Containers that were removed are left out.
func (x *index) links(h *container.HostConfig) []link {
	var out []link
	for _, l := range h.Links {
		id, alias, _ := strings.Cut(l, ":")
		if e, err := x.find(id); err == nil {
			out = append(out, link{alias, e.snapshot()})
		}
	}
	return out
}

// shownLinks is what inspect tells: "/db:/web/db".
func (x *index) shownLinks(rec record) []string {
	var out []string
	for _, l := range x.links(rec.HostConfig) {
		out = append(out, "/"+l.to.Name+":/"+rec.Name+"/"+l.alias)
	}
	return out
}

// linkNames are the names for the resolver, each with a container's id.
func linkNames(links []link) map[string]string {
	if len(links) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, l := range links {
		for _, name := range []string{l.to.Name, ids.Short(l.to.ID), l.alias} {
			out[strings.ToLower(name)] = l.to.ID
		}
	}
	return out
}

// linkVariables are the environment of a start on the default network, in Docker's words. All linked containers have to run.
func linkVariables(rec record, links []link) ([]string, error) {
	if rec.HostConfig.NetworkMode != network.NetworkBridge {
		return nil, nil
	}
	var out []string
	for _, l := range links {
		if !l.to.State.running() {
			return nil, fault.Invalid("Cannot link to a non running container: /%s AS /%s/%s", l.to.Name, rec.Name, l.alias)
		}
		ep := l.to.Joined[network.NetworkBridge]
		if ep == nil || !ep.IPAddress.IsValid() {
			return nil, fault.Invalid("Cannot link to %s, which is not on the default bridge network: /%s AS /%s/%s", l.to.Name, l.to.Name, rec.Name, l.alias)
		}
		prefix := strings.ToUpper(strings.ReplaceAll(l.alias, "-", "_"))
		put := func(key, format string, args ...any) { out = append(out, prefix+key+"="+fmt.Sprintf(format, args...)) }
		ports := slices.SortedFunc(maps.Keys(l.to.Config.ExposedPorts), func(a, b network.Port) int { return int(a.Num()) - int(b.Num()) })
		for i, p := range ports {
			url := fmt.Sprintf("%s://%s:%d", p.Proto(), ep.IPAddress, p.Num())
			one := fmt.Sprintf("_PORT_%d_%s", p.Num(), strings.ToUpper(string(p.Proto())))
			if i == 0 {
				put("_PORT", "%s", url)
			}
			put(one, "%s", url)
			put(one+"_ADDR", "%s", ep.IPAddress)
			put(one+"_PORT", "%d", p.Num())
			put(one+"_PROTO", "%s", p.Proto())
		}
		put("_NAME", "/%s/%s", rec.Name, l.alias)
		for _, kv := range l.to.Config.Env {
			if key, value, ok := strings.Cut(kv, "="); ok && key != "HOME" && key != "PATH" {
				put("_ENV_"+key, "%s", value)
			}
		}
	}
	return out, nil
}
