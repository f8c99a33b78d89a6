#!/usr/bin/env bash
# A Debian base made with debootstrap and imported; a Dockerfile on it that installs nginx and redis, built with `tare
# build` and with the stock client; both serve; pushed, removed, pulled, run again with the same digest.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup debian
start_tared
start_registry

say "debootstrap and import"
cache=${TARE_E2E_CACHE:-/var/cache/tare-e2e}
mkdir -p "$cache"
if [ ! -s "$cache/bookworm.tar" ]; then
  debootstrap --variant=minbase bookworm "$work/bookworm" >"$work/debootstrap.log"
  rm -rf "$work/bookworm/var/cache/apt/archives/"*.deb
  tar -C "$work/bookworm" --numeric-owner --xattrs -cf "$cache/bookworm.tar.new" .
  mv "$cache/bookworm.tar.new" "$cache/bookworm.tar"
  rm -rf "$work/bookworm"
fi
tare import "$cache/bookworm.tar" debian:bookworm
contains "$(tare run --rm debian:bookworm cat /etc/os-release)" 'VERSION_CODENAME=bookworm' "the imported base"

say "build with tare build"
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
tare build -t "$registry/web:1" "$work/ctx" >"$work/build.log" 2>&1
say "build with the stock client: all cached"
DOCKER_BUILDKIT=0 stock build -t "$registry/web:stock" "$work/ctx" >"$work/build-stock.log" 2>&1
grep -q 'Using cache' "$work/build-stock.log" || fail "the second build used no cache"
equal "$(tare image inspect -f '{{.ID}}' "$registry/web:1")" "$(stock image inspect -f '{{.Id}}' "$registry/web:stock")" "the two builds' image id"
say "build with the stock client, without cache"
DOCKER_BUILDKIT=0 stock build --no-cache -t "$registry/web:fresh" "$work/ctx" >"$work/build-fresh.log" 2>&1

serve() { # serve IMAGE: nginx through -p, redis by name over a user-defined network
  tare network create "net-$1"
  tare run -d --name "web-$1" -p 127.0.0.1:0:80 "$2" >/dev/null
  local at
  at=$(tare port "web-$1" 80/tcp | head -1)
  wait_for 10 "nginx" curl -sf "http://$at/"
  equal "$(curl -sf "http://$at/")" "served by nginx in tare" "the page"
  tare run -d --name "redis-$1" --network "net-$1" "$2" redis-server --bind 0.0.0.0 --protected-mode no --save "" >/dev/null
  wait_for 10 "redis" bash -c "'$bin/tare' -H 'unix://$work/tared.sock' run --rm --network 'net-$1' '$2' redis-cli -h 'redis-$1' ping | grep -q PONG"
  local out
  out=$(tare run --rm --network "net-$1" "$2" redis-benchmark -h "redis-$1" -n 20000 -c 20 -q -t set,get)
  contains "$out" 'GET' "redis-benchmark"
  echo "$out" | tr '\r' '\n' | grep 'requests per second' || true
  tare rm -f "web-$1" "redis-$1" >/dev/null
  tare network rm "net-$1" >/dev/null
}
say "serve both"
serve tare "$registry/web:1"
serve fresh "$registry/web:fresh"

say "push, remove, pull, run again"
tare push "$registry/web:1" >/dev/null
digest=$(tare image inspect -f '{{index .RepoDigests 0}}' "$registry/web:1")
stock push "$registry/web:fresh" >/dev/null
tare rmi -f "$registry/web:1" "$registry/web:stock" "$registry/web:fresh" >/dev/null
stock pull "$registry/web:1" >"$work/pull.log"
equal "$(tare image inspect -f '{{index .RepoDigests 0}}' "$registry/web:1")" "$digest" "the digest after push and pull"
serve again "$registry/web:1"
say "ok"
