#!/usr/bin/env bash
# make demo: build, ship and run, for real, in a temporary root. It needs root and the Go module proxy, and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/bin
work=$(mktemp -d /tmp/tare-demo.XXXXXX)
pids=()
tare() { "$bin/tare" -H "unix://$work/tared.sock" "$@"; }

cleanup() {
  status=$?
  set +e
  if [ -S "$work/tared.sock" ]; then
    tare ps -aq | xargs -r "$bin/tare" -H "unix://$work/tared.sock" rm -f >/dev/null
  fi
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null; done
  # The supervisor outlives the engine on purpose; the demo is over, so it goes too.
  [ -f "$work/exec/supervisor.pid" ] && kill "$(cat "$work/exec/supervisor.pid")" 2>/dev/null
  [ $status -ne 0 ] && { echo "--- engine log ---"; tail -20 "$work/tared.log"; }
  rm -rf "$work"
  exit $status
}
trap cleanup EXIT

report=()
step() { # step NAME COMMAND…: run it, remember how long it took
  local name=$1 start end; shift
  printf '\n\033[1m▸ %s\033[0m\n' "$name"
  start=$(date +%s%N)
  "$@"
  end=$(date +%s%N)
  report+=("$(printf '%-34s %8.1f ms' "$name" "$(((end - start) / 10000))e-2")")
}
wait_for() { # wait_for WHAT COMMAND…: until it succeeds, at most 20 s
  local what=$1 end=$((SECONDS + 20)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "$what did not come up" >&2; return 1; }
    sleep 0.01
  done
}

start_engine() {
  "$bin/tared" --data-root "$work/data" --exec-root "$work/exec" --host "unix://$work/tared.sock" --pidfile "$work/tared.pid" >"$work/tared.log" 2>&1 &
  pids+=($!)
  wait_for "the engine" curl -sf --unix-socket "$work/tared.sock" http://localhost/_ping
}
start_registry() {
  "$bin/tare-registry" --root "$work/registry" --addr 127.0.0.1:0 >"$work/registry.addr" 2>"$work/registry.log" &
  pids+=($!)
  wait_for "the registry" grep -q listening "$work/registry.addr"
  registry=$(sed 's/listening on //' "$work/registry.addr")
}
compile() { CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$work/web/web" ./test/demo/web; }
remove() { tare rm -f web && tare rmi "$image" && tare builder prune -af >/dev/null; }
fetch() { wait_for "the page" curl -sf "http://$1/"; curl -sf "http://$1/"; }
address() { tare port "$1" 8080/tcp | head -1; }

mkdir "$work/web"
cp test/demo/web/Dockerfile test/demo/web/page.txt "$work/web/"
step "compile the example" compile
step "start the engine" start_engine
step "start the registry" start_registry
image=$registry/demo/web:1
step "build" tare build -t "$image" "$work/web"
step "build again, cached" tare build -q -t "$image" "$work/web"
step "run" tare run -d --name web -p 127.0.0.1::8080 "$image"
step "fetch the page" fetch "$(address web)"
step "push" tare push "$image"
digest=$(tare image inspect -f '{{index .RepoDigests 0}}' "$image")
step "remove container, image, cache" remove
step "pull" tare pull "$image"
[ "$(tare image inspect -f '{{index .RepoDigests 0}}' "$image")" = "$digest" ] || { echo "another digest came back" >&2; exit 1; }
step "run by digest" tare run -d --name again -p 127.0.0.1::8080 "$digest"
step "fetch the page" fetch "$(address again)"
step "run --rm, from nothing to nothing" tare run --rm "$image" -check
step "exec" tare exec again /web -check
step "ps" tare ps
step "images" tare images --digests
step "logs" tare logs again
step "stop and remove" tare rm -f again
printf '\n\033[1mTimes\033[0m\n'
printf '  %s\n' "${report[@]}"
