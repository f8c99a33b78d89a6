package compat

import "encoding/json"

// eventLegacy repeats an event in the words of API 1.21.
func eventLegacy(e *object) error {
	old := object{}
	actor := e.object("Actor")
	switch e.string("Type") {
	case "container":
		old.set("status", e.string("Action"))
		old.set("id", actor.string("ID"))
		if from := actor.object("Attributes").string("image"); from != "" {
			old.set("from", from)
		}
	case "image":
		old.set("status", e.string("Action"))
		old.set("id", actor.string("ID"))
	}
	*e = append(old, *e...)
	return nil
}

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
