#!/usr/bin/env bash
# make e2e: each numbered script in this folder, or those named as arguments. Needs root and Debian; installs what it needs.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh
install_packages curl wget debootstrap skopeo podman runc docker.io busybox-static iproute2 nftables procps
passed=0 failed=0
scripts=("$@")
[ ${#scripts[@]} -gt 0 ] || scripts=([0-9]*.sh)
for s in "${scripts[@]}"; do
  printf '\n=== %s\n' "$s"
  if bash "./$s"; then passed=$((passed + 1)); else
    failed=$((failed + 1))
    printf '=== %s FAILED\n' "$s"
  fi
done
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
