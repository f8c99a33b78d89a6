#!/bin/bash
# What an engine does with cgroups, step by step, on a machine with systemd: limits, their statistics, update, pause, kills for want of
# memory, exec, device rules, under the manager that is its argument. Prints "ok STEP" for each. Runs inside the virtual machine.
set -uo pipefail
manager=$1
dir=$(mktemp -d /var/tmp/tare-engine-XXXXXX)
sock=$dir/tared.sock
export DOCKER_HOST=unix://$sock
steps=0
fail() {
  echo "FAIL $*"
  tail -20 "$dir/log"
  kill "$pid" 2>/dev/null
  exit 1
}
ok() { echo "ok   $*"; steps=$((steps + 1)); }
want() { # step, got, want
  [ "$2" = "$3" ] || fail "$1: got \"$2\", want \"$3\""
  ok "$1"
}

tared --data-root "$dir/data" --exec-root "$dir/exec" -H "$DOCKER_HOST" --pidfile "$dir/pid" --exec-opt native.cgroupdriver="$manager" --iptables=true >"$dir/log" 2>&1 &
pid=$!
for _ in $(seq 600); do tare version >/dev/null 2>&1 && break; sleep 0.1; done
tare version >/dev/null || fail "the engine does not answer"
want driver "$(tare info --format '{{.CgroupDriver}} {{.CgroupVersion}}')" "$manager $([ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] && echo 2 || echo 1)"

mkdir -p "$dir/root/bin" "$dir/root/proc" "$dir/root/dev" "$dir/root/sys" "$dir/root/tmp" "$dir/root/etc"
cp /bin/busybox "$dir/root/bin/"
for a in sh sleep cat dd head tail true echo mknod wc; do ln -s busybox "$dir/root/bin/$a"; done
tar -C "$dir/root" -c . | tare import - box >/dev/null || fail "import"
run() { tare run --network none "$@"; }

want run "$(run --rm box echo hello)" hello
id=$(run -d --name box1 -m 64m --memory-swap 64m --pids-limit 30 --cpus 0.5 --cpu-shares 512 box sleep 100000) || fail "run -d"
init=$(tare inspect -f '{{.State.Pid}}' box1)
if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
  group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$init/cgroup")
  want memory.max "$(cat "$group/memory.max")" 67108864
  want memory.swap.max "$(cat "$group/memory.swap.max")" 0
  want pids.max "$(cat "$group/pids.max")" 30
  want cpu.max "$(cat "$group/cpu.max")" "50000 100000"
else
  at() { sed -n "s/^[0-9]*:[^:]*$1[^:]*:\(.*\)/\1/p" "/proc/$init/cgroup" | head -1; }
  want memory.limit "$(cat "/sys/fs/cgroup/memory$(at memory)/memory.limit_in_bytes")" 67108864
  want pids.max "$(cat "/sys/fs/cgroup/pids$(at pids)/pids.max")" 30
fi
if [ "$manager" = systemd ]; then
  unit=tare-$id.scope
  want scope "$(systemctl is-active "$unit")" active
  want TasksMax "$(systemctl show -P TasksMax "$unit")" 30
fi
want exec "$(tare exec box1 echo inside)" inside
stats=$(tare stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' box1) || fail "stats"
case $stats in *"/ 64MiB 1") ok stats ;; *) fail "stats: $stats" ;; esac
tare update -m 128m --memory-swap 128m --pids-limit 40 box1 >/dev/null || fail "update"
if [ -n "${group-}" ]; then
  want "update memory.max" "$(cat "$group/memory.max")" 134217728
  want "update pids.max" "$(cat "$group/pids.max")" 40
fi
if [ "$manager" = systemd ]; then
  want "update TasksMax" "$(systemctl show -P TasksMax "$unit")" 40
  systemctl daemon-reload || fail "daemon-reload"
  if [ -n "${group-}" ]; then want "reload keeps memory.max" "$(cat "$group/memory.max")" 134217728; fi
  want "exec after a reload" "$(tare exec box1 echo inside)" inside
fi
tare pause box1 >/dev/null || fail pause
want paused "$(tare inspect -f '{{.State.Status}}' box1)" paused
tare unpause box1 >/dev/null || fail unpause
want unpaused "$(tare inspect -f '{{.State.Status}}' box1)" running
want top "$(tare top box1 | wc -l)" 2
tare exec box1 sh -c 'mknod /tmp/mem c 1 1 && head -c1 /tmp/mem' >/dev/null 2>&1 && fail "a device that no rule allows was read"
ok "device rules"

run --name hungry -m 16m --memory-swap 16m box dd if=/dev/zero of=/dev/null bs=256M count=1 >/dev/null 2>&1
want "oom exit" "$(tare inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' hungry)" "137 true"
timeout 10 tare events --since 10m --until "$(date +%s)" --filter event=oom --format '{{.Action}}' | grep -qx oom || fail "no oom event"
ok "oom event"

kill -9 "$pid"
wait "$pid" 2>/dev/null
tared --data-root "$dir/data" --exec-root "$dir/exec" -H "$DOCKER_HOST" --pidfile "$dir/pid" --exec-opt native.cgroupdriver="$manager" >>"$dir/log" 2>&1 &
pid=$!
for _ in $(seq 600); do tare version >/dev/null 2>&1 && break; sleep 0.1; done
want "running after kill -9 of the engine" "$(tare inspect -f '{{.State.Status}}' box1)" running
want "exec after kill -9 of the engine" "$(tare exec box1 echo inside)" inside
tare restart -t 1 box1 >/dev/null || fail restart
want restarted "$(tare inspect -f '{{.State.Status}}' box1)" running
tare rm -f box1 hungry >/dev/null || fail rm
for _ in $(seq 100); do [ -e "/proc/$init" ] || [ -d "${group:-/nosuch}" ] || break; sleep 0.1; done
[ ! -d "${group:-/nosuch}" ] || fail "the cgroup is left: $group"
if [ "$manager" = systemd ]; then
  for _ in $(seq 100); do [ "$(systemctl show -P LoadState "$unit")" = not-found ] && break; sleep 0.1; done
  want "scope gone" "$(systemctl show -P LoadState "$unit")" not-found
fi
tare run --rm box true || fail "run with a network"
ok "run with a network"
kill "$pid"
wait "$pid" 2>/dev/null
echo "$steps steps"
