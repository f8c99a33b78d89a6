#!/bin/bash
# Runs inside the virtual machine: the test programs, then the engine. Lines for who started it begin with "TARE| ".
export PATH=/tests/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp TARE_BIN=/tests/bin TARE_VM=1
kind=$(sed -n 's/.*tare.kind=\([a-z0-9]*\).*/\1/p' /proc/cmdline)
say() { sed -u 's/^/TARE| /'; }
ip link set lo up
mkdir -p /work && cp -r /tests/src /work/
failed=0
echo "Linux $(uname -r), systemd $(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p'), cgroup $kind, $(stat -fc %T /sys/fs/cgroup)" | say
read -r flags </tests/flags
cd /work/src || exit 1
for t in $(find . -name tests -type f | sort); do
  dir=${t%/tests}
  case $kind in
    v2) ;;
    *) case $dir in ./internal/runtime/cgroup) ;; *) continue ;; esac ;;
  esac
  log=/tmp/$(echo "${dir#./}" | tr / _).log
  # shellcheck disable=SC2086
  if (cd "$dir" && timeout 900 ./tests -test.v -test.timeout 14m $flags) >"$log" 2>&1; then
    echo "ok   ${dir#./}  $(grep -c '^--- PASS' "$log") passed, $(grep -c '^ *--- SKIP' "$log") skipped" | say
    grep -A2 '^ *--- SKIP' "$log" | say
  else
    echo "FAIL ${dir#./}" | say
    { grep -B30 -A3 -E '^ *--- FAIL|^panic|FAIL' "$log" | grep -vE '^=== |^ *--- PASS' | tail -150; } | say
    failed=1
  fi
done
for manager in cgroupfs systemd; do
  if [ "$kind" = v1 ] || [ -n "$flags" ]; then continue; fi
  if bash /tests/engine.sh "$manager" >/tmp/engine.log 2>&1; then
    echo "ok   engine with $manager: $(grep -c '^ok' /tmp/engine.log) steps" | say
  else
    echo "FAIL engine with $manager" | say
    tail -40 /tmp/engine.log | say
    failed=1
  fi
done
exit $failed
