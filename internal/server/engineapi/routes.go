package engineapi

import (
	"net/http"
	"sync/atomic"
)

// routes is every operation that this engine answers.
func routes(s Services) []route {
	listeners := &atomic.Int64{}
	system := systemDoor{listeners: listeners, info: s.Info, version: s.Version, containers: s.Containers, images: s.Images, login: s.Registry}
	disk := diskDoor{containers: s.Containers, images: s.Images, volumes: s.Volumes, cache: s.Builds}
	containers, views := containerDoor{s.Containers}, containerView{s.Containers}
	streams, files := streamDoor{s.Containers}, fileDoor{s.Containers}
	execs := execDoor{s.Execs}
	images := imageDoor{s: s.Images, containers: s.Containers}
	transfers := transferDoor{s: s.Transfers, archives: s.Archives, images: s.Images, auth: s.DefaultAuth, attached: s.Attached}
	moves := imageMovesDoor{s: s.Moves, transfers: s.Verifier}
	networks := networkDoor{s: s.Networks, members: s.Containers, containers: s.Containers}
	volumes := volumeDoor{s.Volumes}
	builds := buildDoor{s: s.Builds, auth: s.DefaultAuth}
	const (
		get, head, post = http.MethodGet, http.MethodHead, http.MethodPost
		put, del        = http.MethodPut, http.MethodDelete
	)
	return []route{
		// System
		{get, "/_ping", system.ping},
		{head, "/_ping", system.ping},
		{get, "/version", system.getVersion},
		{get, "/info", system.getInfo},
		{get, "/events", eventDoor{s.Events, listeners}.stream},
		{get, "/system/df", disk.usage},
		{post, "/auth", system.auth},

		// Container
		{post, "/containers/create", containers.create},
		{get, "/containers/json", views.list},
		{post, "/containers/prune", containers.prune},
		{post, "/containers/{id}/start", containers.start},
		{post, "/containers/{id}/stop", containers.stop},
		{post, "/containers/{id}/restart", containers.restart},
		{post, "/containers/{id}/kill", containers.kill},
		{post, "/containers/{id}/pause", containers.pause},
		{post, "/containers/{id}/unpause", containers.unpause},
		{post, "/containers/{id}/rename", containers.rename},
		{post, "/containers/{id}/update", containers.update},
		{post, "/containers/{id}/wait", views.wait},
		{del, "/containers/{id}", containers.remove},
		{get, "/containers/{id}/json", views.inspect},
		{get, "/containers/{id}/top", views.top},
		{get, "/containers/{id}/logs", files.logs},
		{get, "/containers/{id}/stats", streams.stats},
		{post, "/containers/{id}/attach", streams.attach},
		{get, "/containers/{id}/attach/ws", streams.attachWebSocket},
		{post, "/containers/{id}/resize", streams.resize},
		{get, "/containers/{id}/changes", files.changes},
		{get, "/containers/{id}/export", files.export},
		{get, "/containers/{id}/archive", files.getArchive},
		{head, "/containers/{id}/archive", files.statArchive},
		{put, "/containers/{id}/archive", files.putArchive},
		{get, "/containers/{id}/checkpoints", noCheckpoints},
		{post, "/containers/{id}/checkpoints", noCheckpoints},
		{del, "/containers/{id}/checkpoints/{checkpoint}", noCheckpoints},

		// Exec
		{post, "/containers/{id}/exec", execs.create},
		{post, "/exec/{id}/start", execs.start},
		{post, "/exec/{id}/resize", execs.resize},
		{get, "/exec/{id}/json", execs.inspect},

		// Image
		{get, "/images/json", images.list},
		{post, "/images/create", transfers.create},
		{post, "/images/load", transfers.load},
		{get, "/images/get", transfers.save},
		{get, "/images/search", searchImages},
		{post, "/images/prune", images.prune},
		{get, "/images/diff", moves.diff},
		{post, "/images/verify", moves.verify},
		{get, "/images/{name...}/log", moves.log},
		{post, "/images/{name...}/rollback", moves.rollback},
		{get, "/images/{name...}/json", images.inspect},
		{get, "/images/{name...}/history", images.history},
		{get, "/images/{name...}/get", transfers.save},
		{get, "/images/{name...}/attestations", transfers.attestations},
		{post, "/images/{name...}/push", transfers.push},
		{post, "/images/{name...}/tag", images.tag},
		{del, "/images/{name...}", images.remove},
		{post, "/commit", commitDoor{s.Commits}.commit},

		// Build
		{post, "/build", builds.build},
		{post, "/build/prune", builds.prune},
		{post, "/build/session", builds.session},
		{post, "/build/cancel", noBuildKit},
		{post, "/session", noBuildKit},
		{post, "/grpc", noBuildKit},

		// Distribution
		{get, "/distribution/{name...}/json", distributionDoor{s.Registry}.inspect},

		// Network
		{get, "/networks", networks.list},
		{get, "/networks/", networks.list},
		{post, "/networks/create", networks.create},
		{post, "/networks/prune", networks.prune},
		{get, "/networks/{id}", networks.inspect},
		{del, "/networks/{id}", networks.remove},
		{post, "/networks/{id}/connect", networks.connect},
		{post, "/networks/{id}/disconnect", networks.disconnect},

		// Volume
		{get, "/volumes", volumes.list},
		{post, "/volumes/create", volumes.create},
		{post, "/volumes/prune", volumes.prune},
		{get, "/volumes/{name}", volumes.inspect},
		{put, "/volumes/{name}", notSwarm},
		{del, "/volumes/{name}", volumes.remove},

		// Plugin
		{get, "/plugins", listPlugins},
		{get, "/plugins/privileges", noPlugins},
		{get, "/plugins/{name...}/json", noSuchPlugin},
		{post, "/plugins/pull", noPlugins},
		{post, "/plugins/create", noPlugins},
		{post, "/plugins/{name...}/enable", noSuchPlugin},
		{post, "/plugins/{name...}/disable", noSuchPlugin},
		{post, "/plugins/{name...}/push", noSuchPlugin},
		{post, "/plugins/{name...}/upgrade", noSuchPlugin},
		{post, "/plugins/{name...}/set", noSuchPlugin},
		{del, "/plugins/{name...}", noSuchPlugin},

		// Swarm
		{get, "/swarm", notSwarm},
		{post, "/swarm/init", noSwarm},
		{post, "/swarm/join", noSwarm},
		{post, "/swarm/leave", notInSwarm},
		{post, "/swarm/update", notSwarm},
		{post, "/swarm/unlock", notInSwarm},
		{get, "/swarm/unlockkey", notSwarm},
		{get, "/nodes", notSwarm},
		{get, "/nodes/{id}", notSwarm},
		{del, "/nodes/{id}", notSwarm},
		{post, "/nodes/{id}/update", notSwarm},
		{get, "/services", notSwarm},
		{post, "/services/create", notSwarm},
		{get, "/services/{id}", notSwarm},
		{del, "/services/{id}", notSwarm},
		{get, "/services/{id}/logs", notSwarm},
		{post, "/services/{id}/update", notSwarm},
		{get, "/tasks", notSwarm},
		{get, "/tasks/{id}", notSwarm},
		{get, "/tasks/{id}/logs", notSwarm},
		{get, "/secrets", notSwarm},
		{post, "/secrets/create", notSwarm},
		{get, "/secrets/{id}", notSwarm},
		{del, "/secrets/{id}", notSwarm},
		{post, "/secrets/{id}/update", notSwarm},
		{get, "/configs", notSwarm},
		{post, "/configs/create", notSwarm},
		{get, "/configs/{id}", notSwarm},
		{del, "/configs/{id}", notSwarm},
		{post, "/configs/{id}/update", notSwarm},
	}
}
