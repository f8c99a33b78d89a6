#!/usr/bin/env bash
# Thirty odd images (every media type, contents of all kinds) through every pair of clients and our registry: skopeo, podman, docker, buildah (Debian's) and
# our own engine log in to it, push to it, and pull what each of them pushed; the digests stay. What a container of ours sees of each image is what one of podman's sees.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
install_packages buildah
setup pairs
start_tared
cat >"$work/registry.yaml" <<YAML
root: $work/registry
listen: 127.0.0.1:0
log: {level: warn}
auth: {scheme: token}
rights:
  - {repositories: ["odd/**"], anonymous: true, actions: [pull]}
  - {repositories: ["**"], users: [ann], actions: [pull, push, delete]}
YAML
echo secret | "$bin/tare-registry" user add ann --config "$work/registry.yaml"
"$bin/tare-registry" --config "$work/registry.yaml" >"$work/registry.addr" 2>"$work/registry.log" &
pids+=($!)
wait_for 10 "the registry's start" grep -q listening "$work/registry.addr"
registry=$(sed 's/listening on //' "$work/registry.addr")
start_dockerd --bridge none --iptables=false
export REGISTRY_AUTH_FILE=$work/auth.json
peer_buildah() { buildah --root "$work/podman" --runroot "$work/podman.run" "$@"; }

say "wrong passwords, then right ones"
for login in "skopeo login --tls-verify=false" "peer_podman login --tls-verify=false" "peer_buildah login --tls-verify=false" peer_docker\ login "stock login"; do
  if $login -u ann -p wrong "$registry" >/dev/null 2>&1; then fail "$login took a wrong password"; fi
  $login -u ann -p secret "$registry" >/dev/null 2>&1 || fail "$login"
done

say "the images"
CGO_ENABLED=0 go build -C "$root" -trimpath -ldflags '-s -w' -o "$work/" ./internal/test/tree ./internal/test/odd
"$work/odd" list "$work/tree" >"$work/list"
"$work/odd" layouts "$work/tree" "$work/layouts"
equal "$(wc -l <"$work/list")" 30 "the number of images"
digest_at() { skopeo inspect --raw --tls-verify=false "docker://$registry/$1:v1" | sha256sum | cut -d' ' -f1; }

# Docker's media types don't fit a layout; a registry of our own, for everybody, has all images to copy from.
mkdir "$work/open"
"$bin/tare-registry" --root "$work/open/root" --addr 127.0.0.1:0 --quiet >"$work/open.addr" 2>"$work/open.log" &
pids+=($!)
wait_for 10 "the open registry's start" grep -q listening "$work/open.addr"
origin=$(sed 's/listening on //' "$work/open.addr")
"$work/odd" push "$work/tree" "http://$origin" odd

say "skopeo pushes all"
while read -r name digest words; do
  if [[ $words == *layout* ]]; then from=oci:$work/layouts/$name:v1; else from="--src-tls-verify=false docker://$origin/odd/$name:v1"; fi
  skopeo copy -q --all --preserve-digests --dest-tls-verify=false $from "docker://$registry/odd/$name:v1"
  equal "sha256:$(digest_at "odd/$name")" "$digest" "$name, pushed by skopeo"
done <"$work/list"

say "each client pulls all, pushes under its own name, and what it pushed has the digest it says; skopeo, podman, docker, buildah and we pull that"
seen() { # seen NAME IMAGE: what containers of ours and of podman's see
  stock run --rm --network none "$2" >"$work/ours.seen" 2>"$work/ours.err" || fail "$1 does not run here: $(cat "$work/ours.err")"
  peer_podman run --rm --network none "$2" >"$work/podmans.seen" 2>"$work/podmans.err" || fail "$1 does not run in podman: $(cat "$work/podmans.err")"
  diff "$work/podmans.seen" "$work/ours.seen" >"$work/diff" || fail "$1 looks different here: $(head -5 "$work/diff")"
  [ -s "$work/ours.seen" ] || fail "$1 shows nothing"
}
pairs=0
while read -r name digest words; do
  [[ $words == *runs* ]] || continue
  image=$registry/odd/$name:v1
  engines=(stock docker podman buildah)
  case $name in oci-zstd | oci-mixed | many-files) engines=(stock podman buildah) ;; esac # Debian's docker knows no zstd
  stock pull -q "$image" >/dev/null
  peer_podman pull -q --tls-verify=false "$image" >/dev/null
  seen "$name" "$image"
  id=$(stock image inspect -f '{{.Id}}' "$image")
  equal "sha256:$(peer_podman image inspect -f '{{.Id}}' "$image" | sed 's/^sha256://')" "$id" "$name: podman's image id"
  if [[ ${engines[*]} == *docker* ]]; then
    peer_docker pull -q "$image" >/dev/null
    equal "$(peer_docker image inspect -f '{{.Id}}' "$image")" "$id" "$name: docker's image id"
  fi
  for pusher in "${engines[@]}"; do
    to=$registry/by-$pusher/$name:v1
    case $pusher in
      stock) stock tag "$image" "$to" && stock push -q "$to" >/dev/null ;;
      docker) peer_docker tag "$image" "$to" && peer_docker push -q "$to" >/dev/null && pushed=$(peer_docker image inspect -f '{{join .RepoDigests "\n"}}' "$to" | sed -n "s|^$registry/by-docker/$name@||p") ;;
      podman) peer_podman push -q --tls-verify=false --digestfile "$work/digest" "$image" "docker://$to" && pushed=$(cat "$work/digest") ;;
      buildah) peer_buildah push -q --tls-verify=false --digestfile "$work/digest" "$image" "docker://$to" && pushed=$(cat "$work/digest") ;;
    esac
    at=sha256:$(digest_at "by-$pusher/$name")
    if [ $pusher = stock ]; then
      # What came is what goes: the index or list, if its other platforms are here, else the manifest of this one.
      equal "$(stock image inspect -f '{{.Id}}' "$to")" "$id" "$name: our image id"
      [ "$name" = index ] || [ "$name" = docker-list ] || equal "$at" "$digest" "$name, pushed by us"
    else
      equal "$at" "$pushed" "$name, pushed by $pusher"
    fi
    for puller in skopeo "${engines[@]}"; do
      case $puller in
        skopeo) skopeo copy -q --preserve-digests --src-tls-verify=false "docker://$to" "dir:$work/out" && got=sha256:$(sha256sum "$work/out/manifest.json" | cut -d' ' -f1) && rm -rf "$work/out" ;;
        stock) stock rmi -f "$to" >/dev/null 2>&1 || true; stock pull -q "$to" >/dev/null && got=$(stock image inspect -f '{{join .RepoDigests "\n"}}' "$to" | sed -n "s|^$registry/by-$pusher/$name@||p") ;;
        docker) peer_docker rmi "$to" >/dev/null 2>&1 || true; peer_docker pull -q "$to" >/dev/null && got=$(peer_docker image inspect -f '{{join .RepoDigests "\n"}}' "$to" | sed -n "s|^$registry/by-$pusher/$name@||p") ;;
        podman) peer_podman pull -q --tls-verify=false "$to" >/dev/null && got=$(peer_podman image inspect -f '{{join .RepoDigests "\n"}}' "$to" | sed -n "s|^$registry/by-$pusher/$name@||p" | grep -x "$at" || true) ;;
        buildah) peer_buildah pull -q --tls-verify=false "$to" >/dev/null && got=$(peer_podman image inspect -f '{{join .RepoDigests "\n"}}' "$to" | sed -n "s|^$registry/by-$pusher/$name@||p" | grep -x "$at" || true) ;;
      esac
      # skopeo copies the image of this platform out of an index.
      if [ "$puller" = skopeo ] && { [ "$name" = index ] || [ "$name" = docker-list ]; }; then continue; fi
      equal "$got" "$at" "$name, pushed by $pusher, pulled by $puller"
      pairs=$((pairs + 1))
    done
  done
  stock rmi -f "$id" >/dev/null 2>&1 || true
  peer_docker rmi -f "$id" >/dev/null 2>&1 || true
  peer_podman rmi -af >/dev/null 2>&1 || true
done <"$work/list"
say "$pairs pulls through every pair kept their digest"
[ "$pairs" -ge 500 ] || fail "only $pairs pulls"

say "logged out, nobody reads what is not public"
stock logout "$registry" >/dev/null
if stock pull -q "$registry/by-stock/oci-gzip:v1" >/dev/null 2>&1; then fail "pulled after logout"; fi
stock pull -q "$registry/odd/oci-gzip:v1" >/dev/null
say "ok"
