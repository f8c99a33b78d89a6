package compat

import "encoding/json"

func infoKernelMemoryTCP(i *object) error {
	i.add("KernelMemoryTCP", false)
	return nil
}

func infoBridgeNf(i *object) error {
	i.add("BridgeNfIptables", false)
	i.add("BridgeNfIp6tables", false)
	return nil
}

// infoCommits says what version was expected of each program: the one that is there.
func infoCommits(i *object) error {
	for _, key := range []string{"ContainerdCommit", "RuncCommit", "InitCommit"} {
		c := i.object(key)
		c.add("Expected", json.RawMessage(quote(c.string("ID"))))
		i.set(key, c)
	}
	if rc := i.object("RegistryConfig"); rc != nil {
		rc.add("AllowNondistributableArtifactsCIDRs", nil)
		rc.add("AllowNondistributableArtifactsHostnames", nil)
		i.set("RegistryConfig", rc)
	}
	return nil
}
