#!/usr/bin/env bash
# What the tests run beside Tare: Debian packages, and the stock docker command line. Quick where nothing is missing; run by
# `make test`, which puts .cache/bin at the head of PATH.
#
#	test/deps.sh          install what is missing
#	test/deps.sh --list   only say what is
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
docker_version=28.2.2 # of the client, when it has to be built: the newest of the major version that the tests are written for

# command package
needs="curl curl
busybox busybox-static
skopeo skopeo
docker-registry docker-registry
nft nftables
ip iproute2
ps procps
xz xz-utils
gzip gzip
bzip2 bzip2
tar tar
diff diffutils
unshare util-linux
runc runc
crun crun"

missing=()
while read -r command package; do
  command -v "$command" >/dev/null || missing+=("$package")
done <<<"$needs"
# A busybox that is linked dynamically does not run in an empty root.
if command -v busybox >/dev/null && ldd "$(command -v busybox)" >/dev/null 2>&1; then missing+=(busybox-static); fi

docker=$(PATH="$PWD/.cache/bin:$PATH" command -v docker || true)
case $([ -z "$docker" ] || "$docker" --version) in
  "Docker version ${docker_version%%.*}."*) ;;
  *) docker= ;;
esac

if [ "${1-}" = --list ]; then
  [ ${#missing[@]} -eq 0 ] || printf '%s\n' "${missing[@]}"
  [ -n "$docker" ] || echo "docker $docker_version"
  exit
fi

install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2
}

if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}" >&2
  if ! command -v apt-get >/dev/null; then
    echo "the tests need these programs; this is no Debian, so please install them" >&2
    exit 1
  fi
  # policy-rc.d keeps the packages' services from starting.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  install "${missing[@]}" 2>/dev/null || { apt-get update -q >&2 && install "${missing[@]}"; }
fi

if [ -z "$docker" ]; then
  echo "building the docker command line $docker_version" >&2
  work=$(mktemp -d)
  module=$(cd "$work" && go mod download -json "github.com/docker/cli@v$docker_version+incompatible" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  cp -r "$module" "$work/cli"
  chmod -R u+w "$work"
  (
    # It has no go.mod: its own list of modules, under another name, becomes one. What that list takes from a branch comes
    # from the release.
    cd "$work/cli"
    rm -rf vendor
    mv vendor.mod go.mod
    mv vendor.sum go.sum
    go mod edit -require="github.com/docker/docker@v$docker_version+incompatible"
    CGO_ENABLED=0 GOFLAGS=-mod=mod go build -trimpath -ldflags "-s -w -X github.com/docker/cli/cli/version.Version=$docker_version" \
      -o "$OLDPWD/.cache/bin/docker" ./cmd/docker
  )
  rm -rf "$work"
fi
