#!/usr/bin/env bash
# Images move both ways: what skopeo copies out of our registry and out of `docker save` runs under podman, and what podman and docker pushed runs here.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup interop
start_tared
start_registry
busybox_context "$work/ctx"
echo 'CMD ["/bin/echo", "made by tare"]' >>"$work/ctx/Dockerfile"
tare build -q -t "$registry/ours:1" "$work/ctx" >/dev/null
tare push -q "$registry/ours:1" >/dev/null

say "skopeo out of our registry, run by podman"
skopeo copy -q --src-tls-verify=false "docker://$registry/ours:1" "oci:$work/oci:ours"
peer_podman pull -q "oci:$work/oci:ours" >/dev/null
equal "$(peer_podman run --rm --network none "$(peer_podman images -q | head -1)")" "made by tare" "podman, by way of the registry"

say "skopeo out of docker save, run by podman"
stock save "$registry/ours:1" -o "$work/ours.tar"
skopeo copy -q "docker-archive:$work/ours.tar" "oci:$work/oci2:ours"
peer_podman rmi -af >/dev/null
peer_podman load -q -i "$work/ours.tar" >/dev/null
equal "$(peer_podman run --rm --network none "$registry/ours:1")" "made by tare" "podman, by way of save"
skopeo inspect "oci:$work/data/images:$registry/ours:1" >/dev/null || fail "the store is no OCI layout that skopeo reads"

say "pushed by podman, run here"
sed -i 's/made by tare/made by podman/' "$work/ctx/Dockerfile"
peer_podman build -q -t "$registry/podman:1" "$work/ctx" --network none >/dev/null
peer_podman push -q --tls-verify=false "$registry/podman:1"
equal "$(tare run --rm "$registry/podman:1" 2>/dev/null)" "made by podman" "podman's image"

say "pushed by docker, run here"
start_dockerd
sed -i 's/made by podman/made by docker/' "$work/ctx/Dockerfile"
DOCKER_BUILDKIT=0 peer_docker build -q --network none -t "$registry/docker:1" "$work/ctx" >/dev/null
peer_docker push -q "$registry/docker:1" >/dev/null
equal "$(tare run --rm "$registry/docker:1" 2>/dev/null)" "made by docker" "docker's image"

say "docker save of the peer, loaded and run here; ours loaded and run there"
peer_docker save "$registry/docker:1" | tare load >/dev/null
equal "$(tare run --rm "$registry/docker:1" 2>/dev/null)" "made by docker" "docker's archive"
peer_docker load -q -i "$work/ours.tar" >/dev/null
equal "$(peer_docker run --rm --network none "$registry/ours:1")" "made by tare" "our archive in docker"
peer_docker pull -q "$registry/ours:1" >/dev/null
say "ok"
