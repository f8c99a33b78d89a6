package compat

// adapters is what changed between versions, newest first, after the API's version history
// (docs/CHANGELOG.md of github.com/moby/moby/api). A line without its own words is in force below the version it names.
var adapters = []adapter{
	{route: "GET /system/df", below: "1.53", request: usageVerbose, answer: onObject(usageLegacy)},

	{route: "GET /containers/{id}/json", below: "1.52", answer: onObject(inspectNetworkSettings)},
	{route: "GET /images/{name...}/json", below: "1.52", answer: onObject(imageNulls)},
	{route: "GET /info", below: "1.52", answer: onObject(infoKernelMemoryTCP)},
	{route: "GET /system/df", below: "1.52", answer: onObject(usageOnlyLegacy)},
	{route: "POST /containers/create", below: "1.52", request: createMacAddress},

	{route: "GET /images/json", below: "1.51", answer: onList(imageUncounted)},

	{route: "GET /images/{name...}/json", below: "1.50", answer: onObject(imageContainerFields)},
	{route: "GET /info", below: "1.50", answer: onObject(infoBridgeNf)},

	{route: "GET /info", below: "1.49", answer: onObject(infoCommits)},

	{route: "POST /build/prune", below: "1.48", request: pruneKeepStorage},

	{route: "GET /containers/{id}/json", below: "1.45", answer: onObject(inspectAliases)},
	{route: "GET /images/{name...}/json", below: "1.45", answer: onObject(imageContainerConfig)},

	{route: "GET /images/json", below: "1.44", answer: onList(imageVirtualSize)},
	{route: "GET /images/{name...}/json", below: "1.44", answer: onObject(imageVirtualSize)},
	{route: "GET /system/df", below: "1.44", answer: onObject(usageVirtualSize)},
	{route: "POST /containers/create", below: "1.44", request: createNonRecursive},

	{route: "POST /volumes/prune", below: "1.42", request: pruneNamedVolumes},
	{route: "GET /system/df", below: "1.42", answer: onObject(usageBuilderSize)},

	{route: "POST /containers/create", below: "1.40", request: createShareableIPC},
}
