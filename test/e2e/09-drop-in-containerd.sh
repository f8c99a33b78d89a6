#!/usr/bin/env bash
# Drop-in: a containerd of the script's own runs, execs, limits, pauses, kills and removes containers through containerd-shim-runc-v2
# with tare-run as the shim's runtime binary. Every step runs with runc too: both must say the same.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup drop-containerd
install_packages containerd runc busybox-static

dir=$work/containerd
mkdir "$dir"
cat >"$dir/config.toml" <<TOML
version = 2
root = "$dir/root"
state = "$dir/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "$dir/containerd.sock"
[ttrpc]
  address = "$dir/containerd.ttrpc"
TOML
setsid containerd --config "$dir/config.toml" >"$work/containerd.log" 2>&1 &
containerd_pid=$!
pids+=("$containerd_pid")
c8() { timeout 30 ctr --address "$dir/containerd.sock" -n e2e "$@"; }
# A shim outlives its containerd: what a failed step leaves is killed here.
cat >"$work/at-exit.sh" <<SCRIPT
for p in \$(grep -la "$dir" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3); do
  tr '\0' ' ' 2>/dev/null </proc/\$p/cmdline | grep -q '^[^ ]*containerd-shim' && kill -9 \$p
done
grep " $dir" /proc/self/mountinfo | cut -d" " -f5 | sort -r | xargs -r -n1 umount -l
true
SCRIPT
wait_for 20 "containerd's start" c8 version

say "an image"
mkdir -p "$work/image/bin" "$work/image/etc" "$work/image/tmp"
cp "$(command -v busybox)" "$work/image/bin/busybox"
for applet in sh cat echo id sleep tty grep ls true pwd head tail kill stty mkdir touch; do ln -s busybox "$work/image/bin/$applet"; done
mkdir "$work/oci"
tar -C "$work/image" --numeric-owner -cf "$work/oci/layer.tar" .
layer=$(sha256sum "$work/oci/layer.tar" | cut -d' ' -f1)
printf '{"architecture":"%s","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
  "$(dpkg --print-architecture)" "$layer" >"$work/oci/config.json"
printf '[{"Config":"config.json","RepoTags":["docker.io/library/box:latest"],"Layers":["layer.tar"]}]' >"$work/oci/manifest.json"
tar -C "$work/oci" -cf "$work/oci.tar" manifest.json config.json layer.tar
c8 image import "$work/oci.tar" >/dev/null

steps() {
  local r=$1 c=c-$1 binary pid
  binary=/usr/sbin/runc
  [ "$r" = tare ] && binary=$bin/tare-run
  run() { c8 run --runc-binary "$binary" "$@"; }
  (
    image=docker.io/library/box:latest
    echo "== run"
    run --rm $image "run-$r" echo hello
    run --rm $image "run-$r" sh -c 'exit 7' || echo "exit code $?"
    run --rm $image "run-$r" no-such-program >/dev/null 2>&1 || echo "fails"
    echo "== inside"
    run --rm $image "run-$r" sh -c 'grep -E "^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|SigBlk|SigIgn)" /proc/self/status; ls /dev | grep -v core; id; cat /proc/self/oom_score_adj'
    run --rm --seccomp $image "run-$r" grep Seccomp: /proc/self/status
    run --rm --read-only $image "run-$r" sh -c 'touch /x 2>&1'
    run --rm --cwd /bin --env A=b $image "run-$r" sh -c 'pwd; echo $A'
    run --rm --mount "type=bind,src=$work/image,dst=/mnt,options=rbind:ro" $image "run-$r" sh -c 'ls /mnt; touch /mnt/x 2>&1'
    run --rm --uidmap 0:100000:65536 --gidmap 0:100000:65536 --remap-labels $image "run-$r" id -u 2>/dev/null || echo "no remapping here"
    echo "== exec"
    run -d --memory-limit 67108864 --cpu-quota 50000 --cpu-period 100000 --cpu-shares 512 $image "$c" sleep 1000
    c8 task exec --exec-id e1 "$c" sh -c 'echo exec; exit 4' || echo "exit code $?"
    c8 task exec --exec-id e2 --user 1000 --cwd /bin "$c" sh -c 'id -u; pwd'
    c8 task exec --exec-id e3 "$c" no-such-program >/dev/null 2>&1 || echo "fails"
    script -qec "timeout 30 ctr --address $dir/containerd.sock -n e2e task exec -t --exec-id e4 $c sh -c 'tty; exit 5'" /dev/null </dev/null | tr -d '\r' || echo "exit code $?"
    c8 task exec --detach --exec-id e5 "$c" sleep 500
    c8 task ps "$c" | tail -n +2 | wc -l
    echo "== limits"
    pid=$(c8 task ls | awk -v c="$c" '$1 == c { print $2 }')
    show_limits "$pid" | grep -v pids
    c8 task metrics --format json "$c" | grep -o '"limit": *"\?67108864' | head -1 | tr -dc '0-9\n'
    echo "== pause"
    c8 task pause "$c"
    c8 task ls | awk -v c="$c" '$1 == c { print $3 }'
    c8 task resume "$c"
    c8 task exec --exec-id e6 "$c" echo again
    echo "== kill"
    c8 task kill -s KILL --all "$c"
    wait_for 10 "the end" sh -c "ctr --address $dir/containerd.sock -n e2e task ls | grep -q 'STOPPED'"
    c8 task delete "$c" || echo "exit code $?"
    echo "== restart"
    timeout 30 ctr --address "$dir/containerd.sock" -n e2e task start -d "$c"
    c8 task exec --exec-id e7 "$c" echo restarted
    echo "== remove"
    c8 task delete -f "$c" || echo "exit code $?"
    c8 container delete "$c"
    c8 container ls -q | wc -l
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
