#!/usr/bin/env bash
# make bench: installs the peers where they are missing, then measures, in a host of its own: its processes, mounts and
# network live in namespaces that end with it, whatever happens. Its folder and its cgroups are removed here.
set -euo pipefail
cd "$(dirname "$0")/.."
. test/e2e/lib.sh
install_packages docker.io podman runc crun busybox-static iproute2 curl
work=$(mktemp -d /tmp/tare-bench.XXXXXX)
sweep() {
  local instance group
  instance=$(cat "$work/instance" 2>/dev/null || true)
  if [ -n "$instance" ]; then
    for group in /sys/fs/cgroup/tare/"$instance" /sys/fs/cgroup/*/tare/"$instance"; do
      [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
  fi
  rm -rf "$work"
}
trap sweep EXIT
CGO_ENABLED=0 go build -o "$work/bench" ./bench
# crun refuses a hybrid host whose v2 tree has a controller; here it has none, for all alike.
# With --kill-child and a pid namespace, all that the bench started ends with it.
unshare --net --mount --pid --fork --kill-child --mount-proc -- \
  sh -c '[ ! -e /sys/fs/cgroup/unified/cgroup.controllers ] || mount --bind /dev/null /sys/fs/cgroup/unified/cgroup.controllers; ip link set lo up && mount -t tmpfs run /run && mkdir -p /var/lib/cni && mount -t tmpfs cni /var/lib/cni && exec "$@"' - \
  "$work/bench" -bin bin -work "$work" "$@"
