# shellcheck shell=bash
# What the end-to-end scripts share: a temporary root, engines of ours and of the peers, and an exit that leaves nothing.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$root/bin

install_packages() { # install_packages NAME…: only what is missing
  local missing=()
  for p in "$@"; do dpkg -s "$p" >/dev/null 2>&1 || missing+=("$p"); done
  [ ${#missing[@]} -eq 0 ] && return
  apt-get update -q >/dev/null
  # policy-rc.d keeps the packages' services from starting.
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
  rm -f /usr/sbin/policy-rc.d
}

setup() { # setup NAME: a work folder, removed at the end with all that was started in it
  work=$(mktemp -d "/tmp/tare-e2e-$1.XXXXXX")
  pids=()
  trap finish EXIT
}

finish() {
  local status=$?
  set +e
  [ -S "$work/tared.sock" ] && tare ps -aq 2>/dev/null | xargs -r "$bin/tare" -H "unix://$work/tared.sock" rm -f >/dev/null 2>&1
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null; done
  [ -f "$work/exec/supervisor.pid" ] && kill "$(cat "$work/exec/supervisor.pid")" 2>/dev/null
  [ $status -ne 0 ] && tail -n 30 "$work"/*.log
  findmnt -rno TARGET | grep "^$work" | sort -r | xargs -r -n1 umount -l
  rm -rf "$work"
  exit $status
}

fail() { echo "FAIL: $*" >&2; exit 1; }
say() { printf -- '--- %s\n' "$*"; }
equal() { [ "$1" = "$2" ] || fail "$3: got '$1', want '$2'"; }
contains() { grep -qF -- "$2" <<<"$1" || fail "$3: '$2' is not in: $1"; }

wait_for() { # wait_for SECONDS WHAT COMMAND…
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt "$end" ] || fail "$what did not happen in time"
    sleep 0.05
  done
}

tare() { "$bin/tare" -H "unix://$work/tared.sock" "$@"; }
stock() { DOCKER_HOST=unix://$work/tared.sock docker "$@"; } # the stock client against us

start_tared() {
  "$bin/tared" --data-root "$work/data" --exec-root "$work/exec" --host "unix://$work/tared.sock" --pidfile "$work/tared.pid" "$@" >>"$work/tared.log" 2>&1 &
  pids+=($!)
  wait_for 20 "the engine's start" curl -sf --unix-socket "$work/tared.sock" http://localhost/_ping
}

start_registry() { # sets registry=HOST:PORT
  "$bin/tare-registry" --root "$work/registry" --addr 127.0.0.1:0 >"$work/registry.addr" 2>"$work/registry.log" &
  pids+=($!)
  wait_for 10 "the registry's start" grep -q listening "$work/registry.addr"
  registry=$(sed 's/listening on //' "$work/registry.addr")
}

start_dockerd() { # Debian's dockerd, without network set-up of its own
  mkdir -p "$work/dockerd"
  dockerd --data-root "$work/dockerd/data" --exec-root "$work/dockerd/exec" -H "unix://$work/dockerd.sock" --pidfile "$work/dockerd/pid" \
    --bridge none --iptables=false --storage-driver overlay2 "$@" >"$work/dockerd.log" 2>&1 &
  pids+=($!)
  wait_for 30 "dockerd's start" curl -sf --unix-socket "$work/dockerd.sock" http://localhost/_ping
}
peer_docker() { DOCKER_HOST=unix://$work/dockerd.sock docker "$@"; }

# Podman on a host with cgroup v1 and without CAP_SYS_RESOURCE: runc, and limits that it may set.
peer_podman() {
  printf '[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=1024:1024"]\n' >"$work/containers.conf"
  CONTAINERS_CONF=$work/containers.conf podman --root "$work/podman" --runroot "$work/podman.run" --cgroup-manager cgroupfs \
    --runtime runc --events-backend file --tmpdir "$work/podman.tmp" "$@"
}

# busybox_context DIR: a build context with a static busybox and its links.
busybox_context() {
  mkdir -p "$1"
  cp "$(command -v busybox)" "$1/busybox"
  cat >"$1/Dockerfile" <<'DOCKERFILE'
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
CMD ["/bin/sh"]
DOCKERFILE
}
