#!/usr/bin/env bash
# A Debian base made with debootstrap and imported; a Dockerfile on it that installs nginx and redis, built with `tare
# build` and with the stock client; both serve; pushed, removed, pulled, run again with the same digest.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup debian
start_tared
start_registry

say "debootstrap and import"
debian_base

mkdir "$work/ctx"
cat >"$work/ctx/Dockerfile" <<'DOCKERFILE'
FROM debian:bookworm
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends nginx-light redis-server && rm -rf /var/lib/apt/lists/*
COPY index.html /var/www/html/index.html
EXPOSE 80 6379
CMD ["nginx", "-g", "daemon off;"]
DOCKERFILE
echo "served by nginx in tare" >"$work/ctx/index.html"
build() { tare build -t "$registry/web:1" "$work/ctx" >"$work/build.log" 2>&1; }
build_stock() { DOCKER_BUILDKIT=0 stock build "$@" "$work/ctx" >"$work/build-stock.log" 2>&1; }
say "build"
took "tare build, apt-get install included" build
took "tare build again" build
took "docker build: all cached" build_stock -t "$registry/web:stock"
grep -q 'Using cache' "$work/build-stock.log" || fail "the second build used no cache"
equal "$(tare image inspect -f '{{.ID}}' "$registry/web:1")" "$(stock image inspect -f '{{.Id}}' "$registry/web:stock")" "the two builds' image id"
took "docker build --no-cache" build_stock --no-cache -t "$registry/web:fresh"

serve() { # serve NAME IMAGE: nginx through -p, redis by name over a user-defined network
  local at out
  tare network create "net-$1" >/dev/null
  tare run -d --name "web-$1" -p 127.0.0.1:0:80 "$2" >/dev/null
  at=$(tare port "web-$1" 80/tcp | head -1)
  wait_for 10 "nginx" curl -sf "http://$at/"
  equal "$(curl -sf "http://$at/")" "served by nginx in tare" "the page"
  # nginx's workers are www-data's
  contains "$(tare exec "web-$1" sh -c 'for p in /proc/[0-9]*; do stat -c %U $p; done')" www-data "the owners of nginx's processes"
  tare run -d --name "redis-$1" --network "net-$1" "$2" redis-server --bind 0.0.0.0 --protected-mode no --save "" >/dev/null
  wait_for 10 "redis" redis_ping "$1" "$2"
  out=$(tare run --rm --network "net-$1" "$2" redis-benchmark -h "redis-$1" -n 20000 -c 20 -q -t set,get)
  contains "$out" 'GET' "redis-benchmark"
  tr '\r' '\n' <<<"$out" | grep 'requests per second' | sed 's/^/    /'
  tare rm -f "web-$1" "redis-$1" >/dev/null
  tare network rm "net-$1" >/dev/null
}
redis_ping() { tare run --rm --network "net-$1" "$2" redis-cli -h "redis-$1" ping | grep -q PONG; }
say "serve both"
serve tare "$registry/web:1"
serve fresh "$registry/web:fresh"

say "push"
took "tare push" tare push -q "$registry/web:1" >"$work/push.out"
cat "$work/push.out"
digest=$(tare image inspect -f '{{index .RepoDigests 0}}' "$registry/web:1")
id=$(tare image inspect -f '{{.ID}}' "$registry/web:1")
stock push -q "$registry/web:fresh" >/dev/null

say "remove from the store"
tare rmi -f "$registry/web:1" "$registry/web:stock" "$registry/web:fresh" debian:bookworm >/dev/null
tare builder prune -af >/dev/null
tare image prune -af >/dev/null
equal "$(tare images -aq)" "" "images after the removal"
equal "$(find "$work/tared/data/images/blobs" -type f -size +100k | wc -l)" 0 "layer blobs after the removal"
equal "$(find "$work/tared/data/layers" -mindepth 1 -maxdepth 1 -name '????????????????*' | wc -l)" 0 "unpacked layers after the removal"

say "pull, run again"
took "docker pull" stock pull -q "$registry/web:1" >"$work/pull.out"
grep ' s$' "$work/pull.out"
equal "$(tare image inspect -f '{{index .RepoDigests 0}}' "$registry/web:1")" "$digest" "the digest after push and pull"
equal "$(tare image inspect -f '{{.ID}}' "$registry/web:1")" "$id" "the image id after push and pull"
serve again "$registry/web:1"
serve digest "$digest"

say "an engine that never saw the image pulls it by digest"
engine=tared2
start_tared
took "tare pull" tare pull -q "$digest" >"$work/pull.out"
serve other "$digest"
say "ok"
