#!/usr/bin/env bash
# Drop-in: Debian's dockerd runs, execs, limits, pauses, stops, restarts and removes containers with tare-run as its runtime, through its
# own containerd and shim. Every step runs with runc too, dockerd's default: both must say the same.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup drop-docker
install_packages docker.io runc busybox-static

bridge=tdrop$((RANDOM % 10000))
# dockerd starts a containerd of its own below its exec-root, and ends it with itself.
cat >"$work/at-exit.sh" <<SCRIPT
for p in \$(grep -la "$work/dockerd" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3); do
  tr '\0' ' ' 2>/dev/null </proc/\$p/cmdline | grep -q '^[^ ]*containerd-shim' && kill -9 \$p
done
ip link delete $bridge 2>/dev/null
find /sys/fs/cgroup/$bridge /sys/fs/cgroup/*/$bridge -depth -type d -exec rmdir {} + 2>/dev/null
SCRIPT
ip link add "$bridge" type bridge
ip addr add 10.213.77.1/24 dev "$bridge"
start_dockerd --bridge "$bridge" --cgroup-parent "/$bridge" --iptables=false --ip-forward=false --add-runtime "tare=$bin/tare-run"

say "an image"
busybox_context "$work/ctx"
DOCKER_BUILDKIT=0 peer_docker build -q -t busybox "$work/ctx" >/dev/null
equal "$(peer_docker info -f '{{range $k, $v := .Runtimes}}{{$k}} {{end}}' | tr ' ' '\n' | grep -c '^tare$')" 1 "dockerd knows the runtime"

# No step may wait for ever, whatever the runtime does.
peer_docker() { DOCKER_HOST=unix://$work/dockerd.sock timeout 20 /usr/bin/docker "$@"; }

# steps RUNTIME writes what each step said to $work/steps.RUNTIME.
steps() {
  local r=$1 c=c-$1 pid
  run() { peer_docker run --runtime "$r" "$@"; }
  # Ids and times differ; nothing else may.
  (
    echo "== run"
    run --rm busybox echo hello
    run --rm busybox sh -c 'exit 7' || echo "exit code $?"
    run --rm busybox no-such-program >"$work/out" 2>&1 || echo "exit code $?"
    run --rm busybox /etc >"$work/out" 2>&1 || echo "exit code $?"
    echo from stdin | run --rm -i busybox cat
    echo "== inside"
    run --rm --network none busybox sh -c 'grep -E "^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|SigBlk|SigIgn)" /proc/self/status; cat /proc/self/oom_score_adj; ulimit -n; umask; ls /dev | grep -v core; ls /sys/fs/cgroup'
    run --rm busybox sh -c 'cat /proc/self/mountinfo' | awk '{ print $5, $6 }' | sed "s/,relatime//" | grep -v -e '^/dev/console' -e '^/sys/fs/cgroup ' | sort
    run --rm --user 1000:1001 --group-add 55 busybox id
    run --rm --cap-add SYS_TIME --cap-drop CHOWN busybox grep Cap /proc/self/status
    run --rm --security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status
    run --rm --security-opt seccomp=unconfined busybox grep Seccomp: /proc/self/status
    run --rm --read-only --tmpfs /t busybox sh -c 'touch /x 2>&1; touch /t/x && echo tmpfs'
    run --rm -v "$work/ctx:/ctx:ro" busybox sh -c 'ls /ctx; touch /ctx/x 2>&1'
    run --rm --mount type=volume,dst=/vol busybox sh -c 'touch /vol/x && ls /vol'
    run --rm --device /dev/kmsg:/dev/msg:r busybox sh -c 'ls /dev/msg'
    run --rm --ulimit nofile=100:200 --sysctl net.ipv4.ip_forward=1 --hostname named busybox sh -c 'ulimit -n; cat /proc/sys/net/ipv4/ip_forward; hostname'
    run --rm --init busybox ps -o args
    run --rm --workdir /made/here -e A=b busybox sh -c 'pwd; echo $A'
    run --rm --pid host --ipc host --uts host busybox sh -c 'hostname' >/dev/null && echo host namespaces
    run --rm --shm-size 8m busybox sh -c 'df -k /dev/shm | tail -1 | tr -s " " | cut -d" " -f2'
    echo "== terminal"
    run --rm -t busybox sh -c 'tty; test -t 0 && echo terminal' | tr -d '\r'
    script -qec "DOCKER_HOST=unix://$work/dockerd.sock /usr/bin/docker run --runtime $r --rm -it busybox sh -c 'stty size; exit 3'" /dev/null </dev/null | tr -d '\r' || echo "exit code $?"
    echo "== exec"
    run -d --name "$c" --memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 50 --cpu-shares 512 --cpuset-cpus 0 busybox sleep 1000 >/dev/null
    peer_docker exec "$c" sh -c 'echo exec; exit 4' || echo "exit code $?"
    peer_docker exec -u 1000 -w /bin -e X=y "$c" sh -c 'id -u; pwd; echo $X' || true
    peer_docker exec -t "$c" tty | tr -d '\r'
    peer_docker exec "$c" no-such-program >"$work/out" 2>&1 || echo "exit code $?"
    peer_docker exec -d "$c" sleep 500
    wait_for 5 "the exec" sh -c "DOCKER_HOST=unix://$work/dockerd.sock docker top $c -o pid,args | grep -q 'sleep 500'"
    peer_docker top "$c" -o pid,args | sed "s/^[0-9 ]*//" | sort
    echo "== limits"
    pid=$(peer_docker inspect -f '{{.State.Pid}}' "$c")
    show_limits "$pid"
    peer_docker update --memory 48m --memory-swap 48m --cpus 0.25 --pids-limit 40 "$c" >/dev/null
    show_limits "$pid"
    run --rm --memory 20m --memory-swap 20m busybox sh -c 'head -c 60000000 /dev/zero | tail -c 1 >/dev/null; echo ended' >"$work/out" 2>&1 || true
    cat "$work/out" | grep -o 'Killed\|ended' || true
    run --name "oom-$r" --memory 20m --memory-swap 20m busybox tail /dev/zero >/dev/null 2>&1 || echo "exit code $?"
    peer_docker inspect -f '{{.State.OOMKilled}}' "oom-$r"
    echo "== pause"
    peer_docker pause "$c" >/dev/null
    peer_docker inspect -f '{{.State.Status}}' "$c"
    peer_docker exec "$c" true 2>&1 | sed 's/[0-9a-f]\{64\}//; s/c-[a-z]*/C/' || true
    peer_docker unpause "$c" >/dev/null
    peer_docker exec "$c" echo again
    echo "== stats"
    peer_docker stats --no-stream --format '{{.PIDs}}' "$c"
    echo "== kill, restart, stop"
    peer_docker kill -s USR1 "$c" >/dev/null
    peer_docker restart -t 0 "$c" >/dev/null
    peer_docker exec "$c" echo restarted
    peer_docker kill "$c" >/dev/null
    wait_for 5 "the end" sh -c "[ \"\$(DOCKER_HOST=unix://$work/dockerd.sock docker inspect -f '{{.State.Running}}' $c)\" = false ]"
    peer_docker inspect -f '{{.State.ExitCode}} {{.State.Status}}' "$c"
    peer_docker start "$c" >/dev/null
    peer_docker stop -t 1 "$c" >/dev/null
    peer_docker inspect -f '{{.State.ExitCode}}' "$c"
    echo "== restart policy"
    run -d --name "again-$r" --restart on-failure:2 busybox sh -c 'echo x; exit 1' >/dev/null
    wait_for 20 "two restarts" sh -c "[ \"\$(DOCKER_HOST=unix://$work/dockerd.sock docker inspect -f '{{.RestartCount}} {{.State.Running}}' again-$r)\" = '2 false' ]"
    peer_docker logs "again-$r"
    echo "== attach, logs, cp, commit, diff"
    run -d -i --name "att-$r" busybox sh -c 'read line; echo "got $line"; touch /new' >/dev/null
    echo typed | peer_docker attach "att-$r" >/dev/null # what it still shows at the end is chance
    peer_docker wait "att-$r"
    peer_docker logs "att-$r"
    peer_docker diff "att-$r"
    peer_docker cp "att-$r:/etc/hostname" - | tar -t
    echo "== a crowd"
    for i in 1 2 3 4 5 6; do run -d --name "many-$r-$i" busybox sleep 1000 >/dev/null & done
    wait $(jobs -p | grep -vxF "$(printf '%s\n' "${pids[@]}")")
    peer_docker ps -q | wc -l
    echo "== remove"
    peer_docker ps -aq | xargs docker -H "unix://$work/dockerd.sock" rm -f >/dev/null
    peer_docker ps -aq | wc -l
  ) >"$work/steps.$r" 2>"$work/errors.$r" || { cat "$work/steps.$r" "$work/errors.$r"; fail "a step fails with $r"; }
}

for r in runc tare; do
  say "$r"
  took "all steps with $r" steps "$r"
  wait_for 10 "the end of $r's cgroups" sh -c "! find /sys/fs/cgroup/*/$bridge /sys/fs/cgroup/$bridge -mindepth 1 -type d 2>/dev/null | grep -q ."
done
sed 's/\brunc\b/R/g' "$work/steps.runc" >"$work/want"
sed 's/\btare\b/R/g' "$work/steps.tare" >"$work/got"
diff -u "$work/want" "$work/got" || { cat "$work/errors.tare"; fail "tare-run and runc differ"; }
say "the same, $(wc -l <"$work/got") lines"

say "nothing is left"
end_process "$dockerd_pid"
equal "$(find /sys/fs/cgroup/*/"$bridge" /sys/fs/cgroup/"$bridge" -mindepth 1 -type d 2>/dev/null | head -3)" "" "cgroups"
