#!/usr/bin/env bash
# Measures tare-registry beside Debian's docker-registry and writes bench/registry.md; arguments go to the program (bench/registry).
set -euo pipefail
cd "$(dirname "$0")/.."
. test/e2e/lib.sh
install_packages docker-registry
work=$(mktemp -d /tmp/tare-bench-registry.XXXXXX)
trap 'rm -rf "$work"' EXIT
export CGO_ENABLED=0
go build -o "$work/bench" ./bench/registry
[ -x bin/tare-registry ] || make build
"$work/bench" -bin "${TARE_BIN:-bin}" -work "$work" -out bench/registry.md "$@"
cat bench/registry.md
