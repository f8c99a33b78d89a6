package compat

import (
	"encoding/json"
	"net/http"
)

// inspectNetworkSettings repeats the default bridge's endpoint, as Docker did before networks had names.
func inspectNetworkSettings(c *object) error {
	ns := c.object("NetworkSettings")
	if ns == nil {
		return nil
	}
	bridge := ns.object("Networks").object("bridge")
	from := func(key string, none any) any {
		if v := bridge.get(key); v != nil {
			return v
		}
		return none
	}
	old := object{}
	old.set("Bridge", "")
	old.set("SandboxID", ns.string("SandboxID"))
	old.set("SandboxKey", ns.string("SandboxKey"))
	if ports := ns.get("Ports"); ports != nil {
		old.set("Ports", ports)
	}
	old.set("HairpinMode", false)
	old.set("LinkLocalIPv6Address", "")
	old.set("LinkLocalIPv6PrefixLen", 0)
	old.set("SecondaryIPAddresses", nil)
	old.set("SecondaryIPv6Addresses", nil)
	old.set("EndpointID", from("EndpointID", ""))
	old.set("Gateway", from("Gateway", ""))
	old.set("GlobalIPv6Address", from("GlobalIPv6Address", ""))
	old.set("GlobalIPv6PrefixLen", from("GlobalIPv6PrefixLen", 0))
	old.set("IPAddress", from("IPAddress", ""))
	old.set("IPPrefixLen", from("IPPrefixLen", 0))
	old.set("IPv6Gateway", from("IPv6Gateway", ""))
	old.set("MacAddress", from("MacAddress", ""))
	for _, m := range ns {
		old.add(m.key, m.value)
	}
	c.set("NetworkSettings", old)
	cfg := c.object("Config")
	if cfg != nil {
		cfg.add("OnBuild", nil)
		c.set("Config", cfg)
	}
	return nil
}

// inspectAliases adds the short id to the aliases on user-defined networks.
func inspectAliases(c *object) error {
	id := c.string("Id")
	ns := c.object("NetworkSettings")
	networks := ns.object("Networks")
	if len(id) < 12 {
		return nil
	}
	for i, n := range networks {
		if n.key == "bridge" || n.key == "host" || n.key == "none" {
			continue
		}
		e, err := parseObject(n.value)
		if err != nil {
			continue
		}
		var aliases []string
		json.Unmarshal(e.get("Aliases"), &aliases)
		e.set("Aliases", append(aliases, id[:12]))
		networks[i].value = e.encode()
	}
	if ns != nil {
		ns.set("Networks", networks)
		c.set("NetworkSettings", ns)
	}
	return nil
}

// createMacAddress moves the container's MAC address to the network that it names.
func createMacAddress(r *http.Request) error {
	return onBody(r, func(c *object) error {
		mac := c.string("MacAddress")
		c.remove("MacAddress")
		if mac == "" {
			return nil
		}
		mode := c.object("HostConfig").string("NetworkMode")
		if mode == "" || mode == "default" {
			mode = "bridge"
		}
		networking := c.object("NetworkingConfig")
		endpoints := networking.object("EndpointsConfig")
		endpoint := endpoints.object(mode)
		if endpoint.string("MacAddress") == "" {
			endpoint.set("MacAddress", mac)
		}
		endpoints.set(mode, endpoint)
		networking.set("EndpointsConfig", endpoints)
		c.set("NetworkingConfig", networking)
		return nil
	})
}

// createNonRecursive keeps read-only binds read-only at their top only.
func createNonRecursive(r *http.Request) error {
	return onBody(r, func(c *object) error {
		hc := c.object("HostConfig")
		if m := hc.get("Mounts"); m == nil || string(m) == "null" {
			return nil
		}
		mounts, err := eachOf(hc.get("Mounts"), func(m *object) error {
			if m.string("Type") != "bind" {
				return nil
			}
			o := m.object("BindOptions")
			o.set("ReadOnlyNonRecursive", true)
			m.set("BindOptions", o)
			return nil
		})
		if err != nil {
			return nil // the handler says what is wrong with it
		}
		hc.set("Mounts", mounts)
		c.set("HostConfig", hc)
		return nil
	})
}

// createShareableIPC gives the default of old clients.
func createShareableIPC(r *http.Request) error {
	return onBody(r, func(c *object) error {
		hc := c.object("HostConfig")
		if hc.string("IpcMode") == "" {
			hc.set("IpcMode", "shareable")
			c.set("HostConfig", hc)
		}
		return nil
	})
}
