#!/usr/bin/env bash
# Clients that know nothing of us: Debian's docker-compose 1.29 and python3-docker, dockerode from npm, testcontainers-go with
# Redis and PostgreSQL of Debian's packages.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup clients
install_packages docker-compose python3-docker
command -v npm >/dev/null || install_packages nodejs npm
start_tared
here=$root/test/e2e/clients
export DOCKER_HOST=unix://$work/tared.sock

say "an image with a web server"
mkdir -p "$work/project/web"
cp "$here/compose.yml" "$work/project/docker-compose.yml"
cp "$(command -v busybox)" "$work/project/web/busybox"
cat >"$work/project/web/Dockerfile" <<'DOCKERFILE'
FROM scratch
ARG WORD=none
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /www /tmp /data && echo hello > /www/index.html && echo $WORD > /word
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
DOCKERFILE
tare build -q -t page "$work/project/web" >/dev/null

say "docker-compose $(docker-compose version --short)"
(
  cd "$work/project"
  docker-compose up -d 2>"$work/compose.log"
  equal "$(docker-compose exec -T web wget -q -O - http://web)" hello "a service's name"
  contains "$(docker-compose exec -T web nslookup database)" "Name:	database" "an alias"
  equal "$(docker-compose run --rm -T web echo one-off 2>>"$work/compose.log")" one-off "a run, which has links to its own service"
  docker-compose up -d --scale db=3 2>>"$work/compose.log"
  equal "$(docker-compose ps -q db | wc -l)" 3 "three of one service"
  equal "$(wget -q -O - "http://$(docker-compose port web 80)")" hello "the published port"
  wait_for 10 "the health check" sh -c "docker-compose ps web | grep -q '(healthy)'"
  contains "$(docker-compose logs web db)" "Attaching to" "logs"
  contains "$(docker-compose top)" "docker-init" "top"
  for verb in "stop -t 0" start "restart -t 0" pause unpause kill "rm -f"; do
    # shellcheck disable=SC2086
    docker-compose $verb >>"$work/compose.log" 2>&1 || fail "docker-compose $verb"
  done
  docker-compose down -v --rmi all -t 0 >>"$work/compose.log" 2>&1
)
equal "$(tare ps -aq; tare volume ls -q; tare network ls -q --filter type=custom)" "" "what docker-compose leaves"

say "python3-docker"
timeout 120 /usr/bin/python3 "$here/client.py" page "$work/project/web"

say "dockerode"
mkdir "$work/node"
(cd "$work/node" && npm install --silent --no-audit --no-fund dockerode >"$work/npm.log" 2>&1 && timeout 120 node "$here/client.mjs" page)

say "testcontainers-go"
debian_base
mkdir "$work/services"
cat >"$work/services/start-postgres" <<'SCRIPT'
#!/bin/sh
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data/db
mkdir -p $data && chown postgres $data && chmod 700 $data
su postgres -s /bin/sh -c "$bin/initdb -A trust -D $data >/dev/null"
exec su postgres -s /bin/sh -c "exec $bin/postgres -D $data -c listen_addresses='*'"
SCRIPT
cat >"$work/services/Dockerfile" <<'DOCKERFILE'
FROM debian:bookworm
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server postgresql && rm -rf /var/lib/apt/lists/*
COPY --chmod=755 start-postgres /usr/local/bin/
DOCKERFILE
took "tare build, redis and postgresql" tare build -q -t services "$work/services" >"$work/build.log"
cp -r "$here/testcontainers" "$work/testcontainers"
(
  cd "$work/testcontainers"
  go get github.com/testcontainers/testcontainers-go@v0.44.0 >"$work/get.log" 2>&1 || go get github.com/testcontainers/testcontainers-go >>"$work/get.log" 2>&1
  go mod tidy >>"$work/get.log" 2>&1
  # The reaper would be an image of another registry.
  SERVICES=services TESTCONTAINERS_RYUK_DISABLED=true timeout 300 go test -count 1 ./...
)
equal "$(tare ps -aq)" "" "what testcontainers-go leaves"
