#!/usr/bin/env bash
# make bench: installs the peers where they are missing, then measures.
set -euo pipefail
cd "$(dirname "$0")/.."
. test/e2e/lib.sh
install_packages docker.io podman runc busybox-static
exec go run ./bench -bin bin "$@"
