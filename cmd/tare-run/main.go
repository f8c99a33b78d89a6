// tare-run is the OCI runtime command line and, as `tare-run supervise`, the
// parent of an engine's containers.
package main

import (
	"os"

	"tare/internal/runtime/launch"
	"tare/internal/runtime/oci"
	"tare/internal/runtime/supervise"
)

var version = "dev"

func main() {
	launch.StageMain()
	if asInit() {
		os.Exit(runInit(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		if err := launch.Shield(); err != nil {
			os.Stderr.WriteString("tare-run supervise: cannot run from a file that is safe from containers: " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(supervise.Main(os.Args[2:]))
	}
	os.Exit(oci.Main(os.Args, version))
}
