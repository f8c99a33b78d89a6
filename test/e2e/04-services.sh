#!/usr/bin/env bash
# What Debian's packages need of a container: users, capabilities, shared memory, terminals, time zones, locales; PostgreSQL whose
# data outlives its container; and the same files, to the last attribute, in tare and under podman.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup services
start=$(date +%s)
start_tared
start_registry

say "build"
debian_base
mkdir "$work/ctx"
cat >"$work/ctx/Dockerfile" <<'DOCKERFILE'
FROM debian:bookworm
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 TZ=Europe/Vienna
RUN apt-get update && apt-get install -y --no-install-recommends postgresql python3-minimal iputils-ping attr libcap2-bin tzdata acl locales \
 && rm -rf /var/lib/apt/lists/* && echo 'de_AT.UTF-8 UTF-8' >/etc/locale.gen && locale-gen
# Attributes, owners, modes, links; in a layer of their own and changed by the next.
RUN mkdir -p /odd/opaque/deep /odd/moved /odd/gone && cd /odd \
 && echo old >opaque/deep/old && echo old >opaque/old && echo x >moved/x && echo y >gone/y && echo keep >file \
 && ln file hard && ln -s ../odd/file soft && ln -s /nowhere/at/all dangling && mkfifo pipe && mknod null c 1 3 \
 && echo cap >tool && setcap cap_net_raw,cap_net_admin+ep tool && setfattr -n user.colour -v green file \
 && mkdir sgid sticky && chgrp staff sgid && chmod 2775 sgid && chmod 1777 sticky && echo s >setuid && chown postgres:postgres setuid && chmod 6755 setuid \
 && echo big | dd of=sparse bs=1 seek=10M 2>/dev/null && touch -d '1999-12-31 23:59:59.123456789 UTC' old-file && touch -d '1970-01-01 UTC' epoch \
 && mkdir "$(printf 'name with \303\244 and \012 newline')" && echo z >"$(head -c 200 /dev/zero | tr '\0' n)"
RUN rm -rf /odd/gone /odd/opaque && mkdir -p /odd/opaque/deep && echo new >/odd/opaque/deep/new && mv /odd/moved /odd/moved-here \
 && rm /odd/hard && chmod 600 /odd/tool && setcap cap_chown+ep /odd/tool && chown daemon /odd/sgid && rm -rf /usr/share/doc /etc/opt && touch /etc/opt
DOCKERFILE
image=$registry/services:1
took "tare build, postgresql and python included" tare build -q -t "$image" "$work/ctx" >"$work/build.log"
tail -1 "$work/build.log"
took "tare push" tare push -q "$image" >"$work/push.out"
tail -1 "$work/push.out"

say "what packages expect"
once() { tare run --rm "$@"; }
equal "$(once "$image" ls /odd/opaque /odd/opaque/deep | tr '\n' ' ')" "/odd/opaque: deep  /odd/opaque/deep: new " "a folder that a layer made anew"
if once "$image" ls /odd/gone /odd/moved /odd/hard /usr/share/doc >/dev/null 2>&1; then fail "deleted files are back"; fi
equal "$(once "$image" python3 -c 'import os,sys; print(sum(range(10)), os.getuid(), sys.getfilesystemencoding())')" "45 0 utf-8" "python"
equal "$(once "$image" date +%Z)" "$(TZ=Europe/Vienna date +%Z)" "the time zone"
equal "$(once -e LC_ALL=de_AT.UTF-8 "$image" locale charmap)" "UTF-8" "the locale"
equal "$(once "$image" sh -c 'readlink /bin /lib64 /proc/self/fd/1 | sed "s/:.*//" | tr "\n" " "; readlink -f /bin/sh')" "usr/bin usr/lib64 pipe /usr/bin/dash" "links"
contains "$(once --user nobody "$image" ping -c 1 127.0.0.1)" "1 received" "ping, by its file capability, as nobody"
equal "$(once "$image" sh -c 'stat -fc %T /dev/shm; touch /dev/shm/x /dev/mqueue/x; [ -e /dev/ptmx ] && [ -d /dev/fd/ ] && echo ok')" "tmpfs
ok" "/dev"
equal "$(once --shm-size 32m "$image" sh -c 'df -B1 --output=size /dev/shm | tail -n +2 | tr -d " "')" 33554432 "--shm-size"
contains "$(once -t "$image" sh -c 'tty; stty size </dev/tty >/dev/null && echo sized')" "/dev/pts/0" "the terminal"
equal "$(once --ulimit nofile=4242:4343 "$image" sh -c 'ulimit -n; ulimit -Hn' | tr '\n' ' ')" "4242 4343 " "--ulimit"
equal "$(once "$image" su postgres -s /bin/sh -c 'id -un; echo $$ >/tmp/pid && cat /tmp/pid >/dev/null && echo wrote' | tr '\n' ' ')" "postgres wrote " "su"
equal "$(once --user postgres "$image" sh -c 'id -un; id -Gn' | tr '\n' ' ')" "postgres postgres ssl-cert " "--user and its groups"
once "$image" sh -c 'apt-get update -q >/dev/null && dpkg --audit && apt-get install -q -y --no-install-recommends hello >/dev/null 2>&1 && hello' >"$work/hello.out"
contains "$(cat "$work/hello.out")" "Hello, world!" "apt-get in a running container"

say "postgresql over a network, its data in a volume"
cat >"$work/ctx/start" <<'SCRIPT'
#!/bin/sh
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data
if [ ! -s $data/PG_VERSION ]; then
  $bin/initdb -D $data -A trust -U postgres >/dev/null
  echo 'host all all all trust' >>$data/pg_hba.conf
fi
exec $bin/postgres -D $data -c listen_addresses='*'
SCRIPT
cat >"$work/ctx/Dockerfile.db" <<DOCKERFILE
FROM $image
COPY --chmod=755 start /usr/local/bin/start
RUN mkdir -p /var/lib/postgresql/data && chown postgres:postgres /var/lib/postgresql/data && chmod 700 /var/lib/postgresql/data
USER postgres
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=1s --retries=30 CMD psql -h 127.0.0.1 -U postgres -Atc 'select 1'
CMD ["start"]
DOCKERFILE
tare build -q -f "$work/ctx/Dockerfile.db" -t db "$work/ctx" >/dev/null
tare network create backend >/dev/null
sql() { tare run --rm --network backend "$image" psql -h db -U postgres -Atc "$1"; }
healthy() { [ "$(tare inspect -f '{{.State.Health.Status}}' db)" = healthy ]; }
start_db() { tare run -d --name db --network backend -v pgdata:/var/lib/postgresql/data db >/dev/null; }
took "start until healthy, initdb included" eval 'start_db; wait_for 60 "a healthy database" healthy'
sql 'create table t (n int); insert into t select generate_series(1, 100000)' >/dev/null
equal "$(sql 'select count(*), sum(n) from t')" "100000|5000050000" "what the database answers"
equal "$(sql 'show timezone')" "Europe/Vienna" "the database's time zone"
took "stop" tare stop db >"$work/stop.out"
tail -1 "$work/stop.out"
equal "$(tare inspect -f '{{.State.ExitCode}}' db)" 0 "the stopped database's exit code"
contains "$(tare logs db 2>&1)" "database system is shut down" "the database's log"
tare rm db >/dev/null
start_db
wait_for 30 "a healthy database again" healthy
equal "$(sql 'select count(*), sum(n) from t')" "100000|5000050000" "the data after rm and run"
tare rm -f db >/dev/null
tare network rm backend >/dev/null
tare volume rm pgdata >/dev/null

say "the same files here and under podman"
# One line per file: mode, owner, links, size and time (of files), target, then attributes. What engines put in differs and is left out.
cat >"$work/list" <<'SCRIPT'
# Podman gives the root folder a mode of its own.
skip='^/( |$|(dev|proc|sys|run/\.containerenv|run/secrets|\.dockerenv|etc/(hosts|hostname|resolv\.conf|mtab))($|/| ))'
cd /
find / -xdev \( -type f -printf '%p %y %m %U:%G %n %s %T@\n' -o -type l -printf '%p %y %U:%G %l %T@\n' -o -type d -printf '%p %y %m %U:%G\n' -o -printf '%p %y %m %U:%G %T@\n' \) |
  sed -E 's/([0-9]+)\.[0-9]+$/\1/' | grep -vE "$skip" | LC_ALL=C sort
echo attributes
getfattr -R -h -d -m - -e hex --absolute-names /bin/. /etc /home /lib/. /odd /opt /root /srv /tmp /usr /var 2>/dev/null | LC_ALL=C sed '/^$/d' | grep -v overlay
getcap -r / 2>/dev/null | LC_ALL=C sort
echo contents
find / -xdev -type f -size -2M -print0 | grep -zvE "$skip" | LC_ALL=C sort -z | xargs -0 sha256sum
SCRIPT
mkdir "$work/lists"
tare run --rm -i "$image" bash -s <"$work/list" >"$work/lists/built"
tare rmi -f "$image" db debian:bookworm >/dev/null
tare builder prune -af >/dev/null
tare run --rm -i "$image" bash -s <"$work/list" >"$work/lists/pulled" 2>/dev/null
peer_podman run --rm -i --tls-verify=false --network none "$image" bash -s <"$work/list" >"$work/lists/podman" 2>"$work/podman.log"
# Where an image was built its files have the times at which they were written; elsewhere those have the image's time (ADR 12).
now_is_now() { awk -v start="$start" '$NF + 0 >= start && $NF + 0 < start + 86400 { $NF = "NOW" } 1' "$1"; }
diff <(now_is_now "$work/lists/built") <(now_is_now "$work/lists/pulled") >"$work/built.diff.log" || fail "the files differ: built here and pulled"
diff "$work/lists/pulled" "$work/lists/podman" >"$work/podman.diff.log" || fail "the files differ: here and under podman"
contains "$(cat "$work/lists/built")" "/odd/setuid f 6755" "the list"
contains "$(cat "$work/lists/built")" "/odd/tool cap_chown=ep" "the list of capabilities"
contains "$(cat "$work/lists/built")" "user.colour" "the list of attributes"
echo "    $(grep -c . "$work/lists/built") lines, all equal"
say "ok"
