// Command tare is the command line of the Tare container platform.
package main

import (
	"os"

	"tare/internal/cli"
)

// version is set by the build.
var version = "dev"

func main() { os.Exit(cli.Main(os.Args[1:], version)) }
