#!/usr/bin/env bash
# Engines side by side on one host: Debian's dockerd with its bridge, rules and FORWARD policy, and two engines of ours. All run containers
# with published ports, containers reach the outside, names resolve; ending one, by kill -9 too, leaves the others at work.
#
#	outside (203.0.113.2) ---- host (203.0.113.1): dockerd, tared, tared2 ---- containers
#
# The host is a network namespace of the script's own, so that nothing here meets an engine of this machine.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup beside
host=tare-e2e-host-$$
outside=tare-e2e-outside-$$
cat >"$work/at-exit.sh" <<SCRIPT
ip netns delete $host
ip netns delete $outside
SCRIPT

say "a host and an outside"
ip netns add "$host"
ip netns add "$outside"
ip -n "$host" link set lo up
ip -n "$outside" link set lo up
ip -n "$host" link add uplink type veth peer name eth0 netns "$outside"
ip -n "$host" addr add 203.0.113.1/24 dev uplink
ip -n "$host" link set uplink up
ip -n "$outside" addr add 203.0.113.2/24 dev eth0
ip -n "$outside" link set eth0 up
# Without forwarding, dockerd turns it on and lets its FORWARD chain drop by default: the harder case.
nsenter --net="/run/netns/$host" sysctl -qw net.ipv4.ip_forward=0
inside=(nsenter "--net=/run/netns/$host")
mkdir "$work/www"
echo "the outside" >"$work/www/index.html"
nsenter --net="/run/netns/$outside" busybox httpd -f -p 80 -h "$work/www" &
pids+=($!)

mkdir "$work/ctx"
CGO_ENABLED=0 go build -C "$root" -trimpath -o "$work/ctx/toolbox" ./internal/test/toolbox
printf 'FROM scratch\nCOPY toolbox /toolbox\nENTRYPOINT ["/toolbox"]\n' >"$work/ctx/Dockerfile"

# The three engines, each with a web server published, and a client for each network. run ENGINE ARG… is a command line.
run() {
  local name=$1
  shift
  case $name in
    dockerd) "${inside[@]}" env "DOCKER_HOST=unix://$work/dockerd.sock" /usr/bin/docker "$@" ;;
    *) engine=$name tare "$@" ;;
  esac
}
declare -A port=([tared]=8001 [tared2]=8002 [dockerd]=8003)

start() { # start ENGINE
  case $1 in
    dockerd) start_dockerd --insecure-registry 127.0.0.0/8 ;;
    *) engine=$1 start_tared ;;
  esac
}
serve() { # serve ENGINE: build, publish, a second network with a name
  case $1 in
    dockerd) DOCKER_BUILDKIT=0 run "$1" build -q -t web "$work/ctx" >/dev/null 2>&1 ;;
    *) run "$1" build -q -t web "$work/ctx" >/dev/null ;;
  esac
  run "$1" run -d --name web -p "${port[$1]}:80" web serve :80 "$1" >/dev/null
  run "$1" network create backend >/dev/null
  run "$1" run -d --name named --network backend web serve :80 "$1 by name" >/dev/null
  run "$1" run -d --name client --network backend web sleep 1000 >/dev/null
}
within() { local ns=$1; shift; nsenter "--net=/run/netns/$ns" wget -q -T 3 -t 2 -O - "$@"; }

check() { # check ENGINE WHEN: all ways in, out and across
  local p=${port[$1]}
  equal "$(within "$outside" "http://203.0.113.1:$p/" || true)" "$1" "$2: $1's published port from outside"
  equal "$(within "$host" "http://203.0.113.1:$p/" || true)" "$1" "$2: $1's published port from the host"
  equal "$(within "$host" "http://127.0.0.1:$p/" || true)" "$1" "$2: $1's published port from the host's loopback"
  equal "$(run "$1" exec client /toolbox fetch http://203.0.113.2/ || true)" "the outside" "$2: from $1's container to the outside"
  equal "$(run "$1" exec web /toolbox fetch http://203.0.113.2/ || true)" "the outside" "$2: from $1's default network to the outside"
  equal "$(run "$1" exec client /toolbox fetch http://named/ || true)" "$1 by name" "$2: between $1's containers, by name"
}
check_across() { # check_across FROM TO WHEN: published ports of one engine for another's containers; nothing else
  equal "$(run "$1" exec client /toolbox fetch "http://203.0.113.1:${port[$2]}/" || true)" "$2" "$3: from $1's container to $2's published port"
  local at
  at=$(run "$2" inspect -f '{{.NetworkSettings.Networks.backend.IPAddress}}' named)
  run "$1" exec client /toolbox fetch "http://$at/" >"$work/across.$1.$2" 2>&1 &
  private+=($!)
}
check_private() { # the attempts above to reach private containers have failed
  local pid
  for pid in "${private[@]}"; do
    if wait "$pid"; then fail "a container reaches another engine's private one: $(cat "$work"/across.*)"; fi
  done
  private=()
}
private=()

scene() { # scene FIRST …: start and serve in this order, check all
  local e f
  for e in "$@"; do
    say "start $e"
    start "$e"
    serve "$e"
    for f in "$@"; do
      check "$f" "after $e started"
      [ "$f" = "$e" ] && break
    done
  done
  for e in "$@"; do for f in "$@"; do
    [ "$e" = "$f" ] || check_across "$e" "$f" "all at work"
  done; done
  check_private
}
end() { # end ENGINE
  run "$1" rm -f web named client >/dev/null
  run "$1" network rm backend >/dev/null
}

scene dockerd tared tared2
policy=$("${inside[@]}" iptables -S FORWARD | head -1)
say "dockerd's policy: $policy"

say "kill -9 of one of ours"
end_process "$tared_pid" KILL
check tared "while the second is dead"
check dockerd "while the second is dead"
equal "$(within "$outside" "http://203.0.113.1:${port[tared2]}/")" tared2 "a published port of the dead engine"
engine=tared2 start_tared
check tared2 "after its restart"

say "end tared2, its containers too"
end tared2
end_process "$tared_pid"
second=$(sed -n 's/.* instance=\([a-z0-9]*\).*/\1/p' "$work/tared2.log" | tail -1)
if "${inside[@]}" nft list ruleset 2>/dev/null | grep -F "tare-$second"; then fail "rules of the ended engine"; fi
check tared "without the second"
check dockerd "without the second"

say "end dockerd"
end dockerd
end_process "$dockerd_pid"
check tared "without dockerd"

say "dockerd comes again, after ours"
start dockerd
serve dockerd
check dockerd "started after ours"
check tared "with dockerd started later"
check_across tared dockerd "started later"
check_across dockerd tared "started later"
check_private
equal "$("${inside[@]}" iptables -S FORWARD | head -1)" "$policy" "dockerd's policy at the end"
say "ok"
