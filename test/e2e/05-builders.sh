#!/usr/bin/env bash
# Every Dockerfile of test/build/table built by Tare, by BuildKit (Debian's docker) and by buildah: the same files and config,
# or the table has the reason.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
install_packages buildah attr
setup builders

say "a docker engine of its own, without a network"
cat >"$work/dockerd.sh" <<DOCKERD
ip link set lo up
mount -t tmpfs run /run
exec dockerd --data-root $work/docker --exec-root $work/docker.exec --host unix://$work/dockerd.sock --pidfile $work/docker.pid --iptables=false --bridge=none
DOCKERD
unshare --net --mount --pid --fork --kill-child --mount-proc sh "$work/dockerd.sh" >"$work/dockerd.log" 2>&1 &
pids+=($!)
wait_for 60 "dockerd" docker -H "unix://$work/dockerd.sock" version

say "the table"
cd "$root"
took "tare, buildkit and buildah" env TARE_BIN="$bin" TARE_BUILD_PEERS="buildkit=unix://$work/dockerd.sock buildah=$work/buildah" \
  go test -count=1 -timeout 60m -run TestTable ./test/build >"$work/table.log" 2>&1 || { grep -v level= "$work/table.log" | head -200; fail "the builders differ"; }
