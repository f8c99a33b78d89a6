#!/usr/bin/env bash
# The clauses of test/oci with Debian's runc and crun beside tare-run: what a peer does, tare-run does.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup runtimes
install_packages runc crun busybox-static iproute2 util-linux
cd "$root"
TARE_BIN=$bin CGO_ENABLED=0 go test -count 1 -timeout 10m ./test/oci -run 'TestPeers|TestNames' -peers
