# shellcheck shell=bash
# What the end-to-end scripts share: a temporary root, engines of ours and of the peers, and an exit that leaves nothing.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${TARE_BIN:-$root/bin}
cache=${TARE_E2E_CACHE:-/var/cache/tare-e2e}
engine=tared # the engine that tare, stock and start_tared mean; "engine=second tare ps" means another
inside=()    # a command before engines and clients: nsenter into a host of the script's own
pids=()      # what finish ends, the last first

install_packages() { # install_packages NAME…: only what is missing
  local missing=() p
  for p in "$@"; do dpkg -s "$p" >/dev/null 2>&1 || missing+=("$p"); done
  [ ${#missing[@]} -eq 0 ] && return
  apt-get update -q >/dev/null
  # policy-rc.d keeps the packages' services from starting.
  if [ -e /usr/sbin/policy-rc.d ]; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
  else
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
    rm -f /usr/sbin/policy-rc.d
  fi
}

setup() { # setup NAME: a work folder, removed at the end with all that was started in it
  work=/tmp/tare-e2e-$1.$$.$RANDOM # no capitals: podman makes image names of paths
  mkdir -m 700 "$work"
  mkdir "$work/docker.client"
  echo "{}" >"$work/docker.client/config.json"
  export DOCKER_CONFIG=$work/docker.client
  unset DOCKER_HOST TARE_HOST DOCKER_CONTEXT
  trap finish EXIT
  trap 'exit 130' INT TERM
}

finish() {
  local status=$? i left
  set +e
  trap - INT TERM
  if [ $status -ne 0 ]; then
    sed -i '/status=20[0-9]/d' "$work/registry.log" 2>/dev/null
    tail -n 12 "$work"/*.log 2>/dev/null
    [ -f "$work/failure" ] && cat "$work/failure"
  fi
  for socket in "$work"/*.sock; do
    [ -S "$socket" ] || continue
    case $socket in
      */dockerd*) DOCKER_HOST=unix://$socket docker ps -aq 2>/dev/null | DOCKER_HOST=unix://$socket xargs -r docker rm -f >/dev/null 2>&1 ;;
      *) "$bin/tare" -H "unix://$socket" ps -aq 2>/dev/null | xargs -r "$bin/tare" -H "unix://$socket" rm -f -v >/dev/null 2>&1 ;;
    esac
  done
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill "${pids[i]}" 2>/dev/null
    wait "${pids[i]}" 2>/dev/null
  done
  for log in "$work"/tared*.log; do
    [ -f "$log" ] || continue
    i=$(sed -n 's/.* instance=\([a-z0-9]*\).*/\1/p' "$log" | tail -1)
    [ -n "$i" ] && clean_instance "$i" "${log%.log}"
  done
  left=$(findmnt -rno TARGET | grep "^$work" | sort -r)
  if [ -n "$left" ]; then
    xargs -r -n1 umount -l <<<"$left"
    # Debian's peers leave mounts of their own folders; ours must not.
    left=$(grep "^$work/tared" <<<"$left") && echo "mounts were left: $left" >&2 && status=1
  fi
  for script in "$work"/at-exit.*; do [ -f "$script" ] && sh "$script"; done
  rm -rf "$work" || status=1
  exit $status
}

# clean_instance INSTANCE FOLDER: what an ended engine keeps by design (containers go on, so do the supervisor, the bridges and
# the firewall's table), and what a broken one left.
clean_instance() {
  local pid group name handle
  [ -f "$2/exec/supervisor.pid" ] && kill "$(cat "$2/exec/supervisor.pid")" 2>/dev/null
  for group in /sys/fs/cgroup/tare/"$1" /sys/fs/cgroup/*/tare/"$1"; do
    [ -d "$group" ] || continue
    while read -r pid; do
      echo "process $pid of the engine $1 was left" >&2
      kill -9 "$pid"
      status=1
    done < <(find "$group" -mindepth 2 -name cgroup.procs -exec cat {} + 2>/dev/null)
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
  done
  for name in $("${inside[@]}" ip -o link show type bridge | grep -F "alias tare $1" | sed 's/^[0-9]*: \([^:@]*\).*/\1/'); do
    "${inside[@]}" ip link delete "$name"
  done
  "${inside[@]}" nft delete table inet "tare-$1" 2>/dev/null
  for handle in $("${inside[@]}" nft -a list chain ip filter DOCKER-USER 2>/dev/null | sed -n "s/.*\"tare-$1\".* handle //p"); do
    "${inside[@]}" nft delete rule ip filter DOCKER-USER handle "$handle"
  done
  return 0
}

fail() {
  echo "FAIL: $*" | tee "$work/failure" >&2
  exit 1
}
say() { printf -- '--- %s\n' "$*"; }
equal() { [ "$1" = "$2" ] || fail "$3: got '$1', want '$2'"; }
contains() { grep -qF -- "$2" <<<"$1" || fail "$3: '$2' is not in: $1"; }

took() { # took WHAT COMMAND…: run it, print the seconds
  local what=$1 start
  shift
  start=$(date +%s%N)
  "$@"
  printf '    %-44s %6.2f s\n' "$what" "$((($(date +%s%N) - start) / 10000000))e-2"
}

wait_for() { # wait_for SECONDS WHAT COMMAND…
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt "$end" ] || fail "$what did not happen in time"
    sleep 0.05
  done
}

tare() { "$bin/tare" -H "unix://$work/$engine.sock" "$@"; }
stock() { DOCKER_HOST=unix://$work/$engine.sock docker "$@"; } # the stock client against us

start_tared() { # start_tared FLAG…: sets tared_pid
  # Not in the script's process group: a Ctrl-C ends the script, which then ends the engine.
  setsid "${inside[@]}" "$bin/tared" --data-root "$work/$engine/data" --exec-root "$work/$engine/exec" --host "unix://$work/$engine.sock" \
    --pidfile "$work/$engine.pid" --group "" "$@" >>"$work/$engine.log" 2>&1 &
  tared_pid=$!
  pids+=("$tared_pid")
  wait_for 20 "the engine's start" curl -sf --unix-socket "$work/$engine.sock" http://localhost/_ping
}

start_registry() { # sets registry=HOST:PORT
  "$bin/tare-registry" --root "$work/registry" --addr 127.0.0.1:0 >"$work/registry.addr" 2>"$work/registry.log" &
  pids+=($!)
  wait_for 10 "the registry's start" grep -q listening "$work/registry.addr"
  registry=$(sed 's/listening on //' "$work/registry.addr")
  export registry
}

start_dockerd() { # start_dockerd FLAG…: Debian's dockerd; sets dockerd_pid
  mkdir -p "$work/dockerd"
  setsid "${inside[@]}" /usr/sbin/dockerd --data-root "$work/dockerd/data" --exec-root "$work/dockerd/exec" -H "unix://$work/dockerd.sock" \
    --pidfile "$work/dockerd/pid" --storage-driver overlay2 "$@" >>"$work/dockerd.log" 2>&1 &
  dockerd_pid=$!
  pids+=("$dockerd_pid")
  wait_for 30 "dockerd's start" curl -sf --unix-socket "$work/dockerd.sock" http://localhost/_ping
}

end_process() { # end_process PID [SIGNAL]: one that was started here, and wait
  local i
  kill "-${2:-TERM}" "$1"
  wait "$1" 2>/dev/null || true
  for i in "${!pids[@]}"; do [ "${pids[i]}" != "$1" ] || unset "pids[i]"; done
  pids=("${pids[@]}")
}
peer_docker() { DOCKER_HOST=unix://$work/dockerd.sock /usr/bin/docker "$@"; }

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

# debian_base: a Debian base made with debootstrap, once per machine, imported as debian:bookworm.
debian_base() {
  mkdir -p "$cache"
  if [ ! -s "$cache/bookworm.tar" ]; then
    debootstrap --variant=minbase bookworm "$work/bookworm" >"$work/debootstrap.log"
    rm -rf "$work/bookworm/var/cache/apt/archives/"*.deb
    tar -C "$work/bookworm" --numeric-owner --xattrs --xattrs-include='*' -cf "$cache/bookworm.tar.$$" .
    mv "$cache/bookworm.tar.$$" "$cache/bookworm.tar"
    rm -rf "$work/bookworm"
  fi
  took "import, $(($(stat -c %s "$cache/bookworm.tar") >> 20)) MiB" tare import "$cache/bookworm.tar" debian:bookworm >"$work/import.out"
  tail -1 "$work/import.out"
  contains "$(tare run --rm debian:bookworm cat /etc/os-release)" 'VERSION_CODENAME=bookworm' "the imported base"
}

# show_limits PID: what the cgroups of a process say.
show_limits() {
  local controller path file
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    path=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup")
    for file in memory.max pids.max cpu.max cpuset.cpus; do echo "$file $(cat "$path/$file")"; done
    return
  fi
  for file in memory:memory.limit_in_bytes memory:memory.memsw.limit_in_bytes pids:pids.max cpu:cpu.cfs_quota_us cpu:cpu.shares cpuset:cpuset.cpus; do
    controller=${file%%:*}
    path=$(sed -n "s/^[0-9]*:\([^:]*,\)\?$controller\(,[^:]*\)\?:\(.*\)/\3/p" "/proc/$1/cgroup")
    echo "${file#*:} $(cat "/sys/fs/cgroup/$controller$path/${file#*:}")"
  done
}
