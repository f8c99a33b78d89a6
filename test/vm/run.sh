#!/usr/bin/env bash
# Boots Debian's cloud kernel with systemd in qemu and runs the runtime's tests inside: another kernel than this
# machine's, cgroup v2 with systemd as its manager, then a hybrid and a v1 machine. Called by `make e2e-vm`; installs what it needs.
#
#	test/vm/run.sh                    everything
#	test/vm/run.sh v2                 one kind of machine: v2, hybrid, v1
#	TESTS='-test.run Systemd' …       flags for the test programs
#	PACKAGES='internal/runtime/cgroup' …  only these
#
# What it makes is kept in .cache/vm: the disk (debootstrap), the kernel. The exit code is the tests'.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CGO_ENABLED=0
root=$PWD cache=$PWD/.cache/vm here=$PWD/test/vm
kinds=${*:-v2 hybrid v1}
mkdir -p "$cache"

command -v qemu-system-x86_64 >/dev/null && command -v debootstrap >/dev/null && command -v mke2fs >/dev/null && command -v cpio >/dev/null || {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86 debootstrap e2fsprogs cpio kmod >/dev/null
}

# disk: Debian with systemd, and the kernel's modules. Made anew when this script's list changes.
packages=systemd,systemd-sysv,dbus,iproute2,nftables,iptables,procps,kmod,busybox-static,ca-certificates,util-linux,gcc,libc6-dev,criu
want="$packages 3"
if [ "$(cat "$cache/disk.made" 2>/dev/null)" != "$want" ]; then
  echo "vm: making the disk"
  rm -rf "$cache/rootfs" "$cache/deb"
  mkdir -p "$cache/deb"
  debootstrap --variant=minbase --include="$packages" bookworm "$cache/rootfs" >"$cache/debootstrap.log" 2>&1 || { tail -20 "$cache/debootstrap.log"; exit 1; }
  kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)/\1/p' | head -1)
  (cd "$cache/deb" && apt-get download -qq "$kernel" 2>/dev/null && dpkg-deb -x ./*.deb .)
  cp "$cache"/deb/boot/vmlinuz-* "$cache/vmlinuz"
  version=$(basename "$cache"/deb/lib/modules/*)
  mkdir -p "$cache/rootfs/lib/modules"
  cp -r "$cache/deb/lib/modules/$version" "$cache/rootfs/lib/modules/"
  depmod -b "$cache/rootfs" "$version"
  echo "$version" >"$cache/version"
  echo tare-vm >"$cache/rootfs/etc/hostname"
  printf '127.0.0.1 localhost tare-vm\n' >"$cache/rootfs/etc/hosts"
  cp "$here/tare-tests.service" "$cache/rootfs/etc/systemd/system/"
  mkdir -p "$cache/rootfs/etc/systemd/system/multi-user.target.wants" "$cache/rootfs/tests"
  ln -sf ../tare-tests.service "$cache/rootfs/etc/systemd/system/multi-user.target.wants/"
  for unneeded in systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer getty@tty1.service systemd-networkd.service systemd-resolved.service; do
    ln -sf /dev/null "$cache/rootfs/etc/systemd/system/$unneeded"
  done
  rm -f "$cache/disk.img"
  mke2fs -q -t ext4 -d "$cache/rootfs" "$cache/disk.img" 3G >/dev/null
  rm -rf "$cache/rootfs/usr/share/doc"
  echo "$want" >"$cache/disk.made"
fi

# initrd: the modules that the disk needs, in order, and a program that loads them.
version=$(cat "$cache/version")
rm -rf "$cache/initrd"
mkdir -p "$cache/initrd"/{modules,dev,root}
go build -trimpath -ldflags '-s -w' -o "$cache/initrd/init" ./test/vm/initrd
n=10
for m in $(modprobe -d "$cache/rootfs" -S "$version" --show-depends -a virtio_pci virtio_blk 2>/dev/null | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'); do
  cp "$m" "$cache/initrd/modules/$n-$(basename "$m")"
  n=$((n + 1))
done
(cd "$cache/initrd" && find . | cpio -o -H newc --quiet) >"$cache/initrd.img"

# tests: the packages' test programs with their testdata, and Tare's own.
stage=$cache/stage
rm -rf "$stage"
mkdir -p "$stage/bin"
go build -trimpath -ldflags '-s -w' -o "$stage/bin/" ./cmd/tare ./cmd/tared ./cmd/tare-run
for package in ${PACKAGES:-$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' ./internal/runtime/... ./test/oci | sed "s|^$root/||")}; do
  mkdir -p "$stage/src/$package"
  go test -c -o "$stage/src/$package/tests" "./$package" || exit 1
  [ ! -d "$package/testdata" ] || cp -r "$package/testdata" "$stage/src/$package/"
done
cp go.mod "$stage/src/"
cp "$here"/guest.sh "$here"/engine.sh "$stage/"
echo "${TESTS:-}" >"$stage/flags"
rm -f "$cache/tests.img"
mke2fs -q -t ext4 -d "$stage" "$cache/tests.img" 1G >/dev/null

# /dev/kvm may be there without working; its processor flag tells.
accel=(-accel tcg,thread=multi -cpu max)
if [ -w /dev/kvm ] && grep -qE '^flags.* (vmx|svm) ' /proc/cpuinfo; then accel=(-accel kvm -cpu host); fi

failed=0
for kind in $kinds; do
  case $kind in
    v2) args="systemd.unified_cgroup_hierarchy=1" ;;
    hybrid) args="systemd.unified_cgroup_hierarchy=0" ;;
    v1) args="systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1" ;;
    *) echo "vm: $kind is none of v2, hybrid, v1" >&2; exit 2 ;;
  esac
  echo "vm: booting Linux $version, cgroup $kind"
  log=$cache/$kind.log
  timeout "${VM_TIMEOUT:-1500}" qemu-system-x86_64 "${accel[@]}" -smp 2 -m 2048 -no-reboot -display none -monitor none -serial stdio -nic none \
    -device virtio-rng-pci \
    -drive file="$cache/disk.img",format=raw,if=virtio,snapshot=on -drive file="$cache/tests.img",format=raw,if=virtio,snapshot=on \
    -kernel "$cache/vmlinuz" -initrd "$cache/initrd.img" \
    -append "console=ttyS0 quiet panic=-1 loglevel=3 systemd.show_status=0 systemd.journald.forward_to_console=0 apparmor=1 tare.kind=$kind $args" \
    </dev/null 2>&1 | sed -u 's|\r||g' | tee "$log" | sed -un 's/^.*TARE| //p' || true
  result=$(sed -n 's/^.*TARE-EXIT \([0-9]*\).*$/\1/p' "$log" | tail -1)
  if [ "$result" != 0 ]; then
    echo "vm: cgroup $kind failed (${result:-the machine did not finish}); the console is in $log"
    failed=1
  fi
done
exit $failed
