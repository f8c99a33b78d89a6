#!/usr/bin/env bash
# Drop-in: Debian's podman and buildah run, exec, limit, pause, kill, restart and remove containers with tare-run as their runtime,
# through conmon, with and without a pod. Every step runs with runc too: both must say the same.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup p
install_packages podman buildah runc conmon busybox-static

printf '[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=1024:1024"]\n' >"$work/containers.conf"
# It asks a runtime that it does not know for nothing but OCI's commands.
printf '[engine.runtimes]\ntare=["%s/tare-run"]\n' "$bin" >>"$work/containers.conf"
export CONTAINERS_CONF=$work/containers.conf
mkdir "$work/storage"
pod() { # pod RUNTIME ARG…
  local r=$1
  shift
  timeout 60 podman --root "$work/storage/$r" --runroot "$work/$r.run" --storage-driver overlay --cgroup-manager cgroupfs --runtime "$(runtime_of "$r")" \
    --events-backend file --tmpdir "$work/storage/$r.tmp" "$@"
}
runtime_of() { if [ "$1" = tare ]; then echo "$bin/tare-run"; else echo /usr/sbin/runc; fi; }
cat >"$work/at-exit.sh" <<SCRIPT
for r in runc tare; do
  CONTAINERS_CONF=$work/containers.conf podman --root $work/storage/\$r --runroot $work/\$r.run --storage-driver overlay --cgroup-manager cgroupfs --events-backend file --tmpdir $work/storage/\$r.tmp rm -fat 0 >/dev/null 2>&1
  CONTAINERS_CONF=$work/containers.conf podman --root $work/storage/\$r --runroot $work/\$r.run --storage-driver overlay --cgroup-manager cgroupfs --events-backend file --tmpdir $work/storage/\$r.tmp pod rm -fa >/dev/null 2>&1
done
grep " $work/" /proc/self/mountinfo | cut -d" " -f5 | sort -r | xargs -r -n1 umount -l
SCRIPT

say "an image"
busybox_context "$work/ctx"
mkdir -p "$work/rootfs/bin" "$work/rootfs/etc" "$work/rootfs/tmp"
cp "$(command -v busybox)" "$work/rootfs/bin/busybox"
for applet in $("$work/rootfs/bin/busybox" --list | grep -vx busybox); do ln -sf busybox "$work/rootfs/bin/$applet"; done
tar -C "$work/rootfs" -cf "$work/image.tar" .

steps() {
  local r=$1 c=c-$1 pid
  run() { pod "$r" run --network none "$@"; }
  (
    pod "$r" import -q "$work/image.tar" busybox:latest >/dev/null
    echo "== run"
    run --rm busybox echo hello
    run --rm busybox sh -c 'exit 7' || echo "exit code $?"
    run --rm busybox no-such-program >/dev/null 2>&1 || echo "exit code $?"
    echo from stdin | run --rm -i busybox cat
    echo "== inside"
    run --rm busybox sh -c 'grep -E "^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|SigBlk|SigIgn)" /proc/self/status; ulimit -n; umask; ls /dev | grep -v core'
    run --rm --user 1000:1001 busybox id
    run --rm --cap-add SYS_TIME --cap-drop CHOWN busybox grep Cap /proc/self/status
    run --rm --read-only --tmpfs /t busybox sh -c 'touch /x 2>&1; touch /t/x && echo tmpfs'
    run --rm -v "$work/ctx:/ctx:ro" busybox sh -c 'ls /ctx; touch /ctx/x 2>&1'
    run --rm --sysctl net.ipv4.ip_forward=1 --hostname named busybox sh -c 'cat /proc/sys/net/ipv4/ip_forward; hostname'
    run --rm --workdir /bin -e A=b busybox sh -c 'pwd; echo $A'
    run --rm --uidmap 0:100000:65536 --gidmap 0:100000:65536 busybox sh -c 'id -u; cat /proc/self/uid_map' | tr -s ' '
    run --rm -t busybox sh -c 'tty; test -t 0 && echo terminal' | tr -d '\r'
    echo "== exec"
    run -d --name "$c" --memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 50 --cpuset-cpus 0 busybox sleep 1000 >/dev/null
    pod "$r" exec "$c" sh -c 'echo exec; exit 4' || echo "exit code $?"
    pod "$r" exec -u 1000 -w /bin -e X=y "$c" sh -c 'id -u; pwd; echo $X'
    pod "$r" exec -t "$c" tty | tr -d '\r'
    echo from stdin | pod "$r" exec -i "$c" cat
    pod "$r" exec "$c" no-such-program >/dev/null 2>&1 || echo "exit code $?"
    echo "== limits"
    pid=$(pod "$r" inspect -f '{{.State.Pid}}' "$c")
    show_limits "$pid"
    echo "== pause"
    pod "$r" pause "$c" >/dev/null
    pod "$r" inspect -f '{{.State.Status}}' "$c"
    pod "$r" unpause "$c" >/dev/null
    pod "$r" exec "$c" echo again
    pod "$r" top "$c" args | tail -n +2
    echo "== kill, restart, stop"
    pod "$r" restart -t 0 "$c" >/dev/null
    pod "$r" exec "$c" echo restarted
    pod "$r" kill "$c" >/dev/null
    pod "$r" wait "$c"
    pod "$r" start "$c" >/dev/null
    pod "$r" stop -t 1 "$c" >/dev/null 2>&1
    pod "$r" inspect -f '{{.State.ExitCode}} {{.State.Status}}' "$c"
    run --name "oom-$r" --memory 20m --memory-swap 20m busybox tail /dev/zero >/dev/null 2>&1 || echo "exit code $?"
    echo "== attach, logs"
    run -d -i --name "att-$r" busybox sh -c 'echo started; read line; echo "got $line"' >/dev/null
    echo typed | pod "$r" attach "att-$r" >/dev/null # what it still shows at the end is chance
    pod "$r" wait "att-$r"
    pod "$r" logs "att-$r"
    echo "== remove"
    pod "$r" rm -fat 0 >/dev/null
    pod "$r" ps -aq | wc -l
    echo "== buildah"
    bah() { timeout 60 buildah --root "$work/storage/$r" --runroot "$work/$r.run" --storage-driver overlay "$@"; }
    printf 'FROM localhost/busybox\nRUN echo built > /built && id -u\nRUN ["/bin/sh", "-c", "cat /built"]\nUSER 1000\nRUN id -u\n' >"$work/Containerfile"
    bah bud --runtime "$(runtime_of "$r")" --isolation oci --network none -q -f "$work/Containerfile" -t built "$work/ctx" | sed 's/[0-9a-f]\{64\}/ID/'
    id=$(bah from localhost/built)
    bah run --runtime "$(runtime_of "$r")" --isolation oci --network none "$id" -- sh -c 'cat /built; id -u'
    bah rm "$id" >/dev/null
  ) >"$work/steps.$r" 2>"$work/errors.$r" || { cat "$work/steps.$r" "$work/errors.$r"; fail "a step fails with $r"; }
}

for r in runc tare; do
  say "$r"
  took "all steps with $r" steps "$r"
done
sed 's/\brunc\b/R/g' "$work/steps.runc" >"$work/want"
sed 's/\btare\b/R/g' "$work/steps.tare" >"$work/got"
diff -u "$work/want" "$work/got" || { cat "$work/errors.tare"; fail "tare-run and runc differ"; }
say "the same, $(wc -l <"$work/got") lines"
