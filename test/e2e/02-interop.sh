#!/usr/bin/env bash
# Images move both ways: what skopeo copies out of our registry and out of `docker save` runs under podman and docker, and what podman,
# skopeo and docker pushed runs here: OCI and Docker manifests, gzip and zstd layers, images of several platforms. The digests stay.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup interop
start_tared
start_registry
busybox_context "$work/ctx"
echo 'CMD ["/bin/echo", "made by tare"]' >>"$work/ctx/Dockerfile"
tare build -q -t "$registry/ours:1" "$work/ctx" >/dev/null
tare push -q "$registry/ours:1" >/dev/null
id=$(tare image inspect -f '{{.ID}}' "$registry/ours:1")

id_of() { tare image inspect -f '{{.ID}}' "$1"; }
digest_of() { tare image inspect -f '{{index .RepoDigests 0}}' "$1" | sed 's/.*@//'; }
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" | head -1; } # the first value of a key in JSON on stdin
forget() { tare rmi -f "$@" >/dev/null; } # what follows has to come from elsewhere
digest=$(digest_of "$registry/ours:1")

say "skopeo out of our registry, run by podman"
equal "$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$registry/ours:1")" "$digest" "the digest skopeo sees"
skopeo copy -q --src-tls-verify=false "docker://$registry/ours:1" "oci:$work/oci:ours"
equal "$(field digest <"$work/oci/index.json")" "$digest" "the digest in skopeo's layout"
peer_podman pull -q "oci:$work/oci:ours" >/dev/null
equal "sha256:$(peer_podman images -q --no-trunc | sed 's/sha256://')" "$id" "podman's image id"
equal "$(peer_podman run --rm --network none "${id#sha256:}")" "made by tare" "podman, by way of the registry"

say "podman out of our registry"
peer_podman rmi -af >/dev/null
peer_podman pull -q --tls-verify=false "$registry/ours:1" >/dev/null
equal "$(peer_podman image inspect -f '{{.Digest}}' "$registry/ours:1")" "$digest" "the digest of podman's pull"
equal "$(peer_podman run --rm --network none "$registry/ours:1")" "made by tare" "podman's pull"

say "skopeo out of docker save, run by podman"
stock save "$registry/ours:1" -o "$work/ours.tar"
skopeo copy -q "docker-archive:$work/ours.tar" "oci:$work/oci2:ours"
peer_podman rmi -af >/dev/null
peer_podman load -q -i "$work/ours.tar" >/dev/null
equal "sha256:$(peer_podman images -q --no-trunc | sed 's/sha256://')" "$id" "podman's image id after load"
equal "$(peer_podman run --rm --network none "$registry/ours:1")" "made by tare" "podman, by way of save"
equal "$(skopeo inspect --format '{{.Digest}}' "oci:$work/tared/data/images:$registry/ours:1")" "$digest" "the store as a layout for skopeo"

say "our archive, loaded again"
forget "$registry/ours:1"
tare load -q -i "$work/ours.tar" >/dev/null
equal "$(id_of "$registry/ours:1")" "$id" "the image id after save and load"
equal "$(tare run --rm "$registry/ours:1")" "made by tare" "our archive"

say "podman's archives, both forms, loaded and run here"
for form in docker-archive oci-archive; do
  peer_podman save -q --format "$form" -o "$work/podman.$form" "$registry/ours:1"
  forget "$registry/ours:1"
  tare load -q -i "$work/podman.$form" >/dev/null
  equal "$(tare run --rm "$registry/ours:1")" "made by tare" "podman's $form"
done

say "pushed by podman, run here"
sed -i 's/made by tare/made by podman/' "$work/ctx/Dockerfile"
peer_podman build -q -t "$registry/podman:1" "$work/ctx" --network none >/dev/null
peer_podman push -q --tls-verify=false --digestfile "$work/podman.digest" "$registry/podman:1"
equal "$(tare run --rm "$registry/podman:1" 2>/dev/null)" "made by podman" "podman's image"
equal "$(digest_of "$registry/podman:1")" "$(cat "$work/podman.digest")" "the digest of podman's image"
equal "$(id_of "$registry/podman:1")" "$(peer_podman image inspect -f 'sha256:{{.Id}}' "$registry/podman:1")" "the id of podman's image"

say "Docker's manifests (schema 2), pushed by skopeo"
skopeo copy -q --format v2s2 --dest-tls-verify=false "oci:$work/oci:ours" "docker://$registry/schema2:1"
contains "$(skopeo inspect --raw --tls-verify=false "docker://$registry/schema2:1")" application/vnd.docker.distribution.manifest.v2+json "the manifest's type"
equal "$(tare run --rm "$registry/schema2:1" 2>/dev/null)" "made by tare" "a schema 2 image"

say "zstd layers"
skopeo copy -q --dest-decompress "oci:$work/oci:ours" "dir:$work/plain" # skopeo compresses only what isn't
skopeo copy -q --dest-compress --dest-compress-format zstd "dir:$work/plain" "oci:$work/zstd:ours"
skopeo copy -q --preserve-digests --dest-tls-verify=false "oci:$work/zstd:ours" "docker://$registry/zstd:1"
contains "$(skopeo inspect --raw --tls-verify=false "docker://$registry/zstd:1")" tar+zstd "the layers' type"
forget "$registry/ours:1" "$registry/schema2:1"
tare builder prune -af >/dev/null
equal "$(tare run --rm "$registry/zstd:1" 2>/dev/null)" "made by tare" "an image with zstd layers"
equal "$(digest_of "$registry/zstd:1")" "$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$registry/zstd:1")" "the digest of the zstd image"
tare tag "$registry/zstd:1" "$registry/zstd:2"
tare push -q "$registry/zstd:2" >/dev/null
equal "$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$registry/zstd:2")" "$(digest_of "$registry/zstd:1")" "the zstd image's digest, pushed again"
tare save -o "$work/zstd.tar" "$registry/zstd:1"

say "one name, three platforms, made by podman"
cp "$(command -v busybox)" "$work/ctx/busybox"
peer_podman manifest create "$registry/multi:1" >/dev/null
for arch in amd64 arm64 s390x; do
  printf 'FROM scratch\nCOPY busybox /bin/busybox\nLABEL arch=%s\nCMD ["/bin/busybox", "echo", "made for %s"]\n' $arch $arch >"$work/ctx/Dockerfile.$arch"
  peer_podman build -q --platform "linux/$arch" -f "$work/ctx/Dockerfile.$arch" -t "part-$arch" "$work/ctx" >/dev/null
  peer_podman manifest add "$registry/multi:1" "containers-storage:localhost/part-$arch:latest" >/dev/null
done
peer_podman manifest push -q --all --tls-verify=false "$registry/multi:1" "docker://$registry/multi:1"
contains "$(skopeo inspect --raw --tls-verify=false "docker://$registry/multi:1")" s390x "the list of platforms"
here=$(stock version -f '{{.Server.Arch}}')
equal "$(tare run --rm "$registry/multi:1" 2>/dev/null)" "made for $here" "the platform chosen here"
index=$(skopeo inspect --raw --tls-verify=false "docker://$registry/multi:1" | sha256sum | cut -d' ' -f1)
equal "$(digest_of "$registry/multi:1")" "sha256:$index" "the digest of an image of several platforms"
tare pull -q --platform linux/s390x "$registry/multi:1" >/dev/null
equal "$(tare image inspect -f '{{.Architecture}}' "$registry/multi:1")" s390x "the platform asked for"
if out=$(tare pull --platform linux/riscv64 "$registry/multi:1" 2>&1); then fail "pulled a platform that does not exist"; fi
contains "$out" "no matching manifest for linux/riscv64" "a platform that does not exist"

say "pushed by docker, run here"
start_dockerd --bridge none --iptables=false
sed -i 's/made by podman/made by docker/' "$work/ctx/Dockerfile"
DOCKER_BUILDKIT=0 peer_docker build -q --network none -t "$registry/docker:1" "$work/ctx" >"$work/docker-build.log" 2>&1
peer_docker push -q "$registry/docker:1" >/dev/null
equal "$(tare run --rm "$registry/docker:1" 2>/dev/null)" "made by docker" "docker's image"
equal "$(id_of "$registry/docker:1")" "$(peer_docker image inspect -f '{{.Id}}' "$registry/docker:1")" "the id of docker's image"
equal "$(digest_of "$registry/docker:1")" "$(peer_docker image inspect -f '{{index .RepoDigests 0}}' "$registry/docker:1" | sed 's/.*@//')" "the digest of docker's image"
DOCKER_BUILDKIT=1 peer_docker build -q --network none -t "$registry/buildkit:1" "$work/ctx" >"$work/docker-build.log" 2>&1
peer_docker push -q "$registry/buildkit:1" >/dev/null
equal "$(tare run --rm "$registry/buildkit:1" 2>/dev/null)" "made by docker" "BuildKit's image"

say "docker save of the peer, loaded and run here; ours loaded and run there"
forget "$registry/docker:1"
peer_docker save "$registry/docker:1" | tare load >/dev/null
equal "$(tare run --rm "$registry/docker:1" 2>/dev/null)" "made by docker" "docker's archive"
equal "$(id_of "$registry/docker:1")" "$(peer_docker image inspect -f '{{.Id}}' "$registry/docker:1")" "the id of docker's archive"
for archive in ours zstd; do
  name=$registry/$archive:1
  peer_docker load -q -i "$work/$archive.tar" >/dev/null
  equal "$(peer_docker run --rm --network none "$name")" "made by tare" "our archive of $archive in docker"
done
equal "$(peer_docker image inspect -f '{{.Id}}' "$registry/ours:1")" "$id" "the id of our archive in docker"
peer_docker rmi -f "$registry/ours:1" >/dev/null
peer_docker pull -q "$registry/ours:1" >/dev/null
equal "$(peer_docker image inspect -f '{{.Id}}' "$registry/ours:1")" "$id" "the id of our image in docker"
equal "$(peer_docker run --rm --network none "$registry/ours:1")" "made by tare" "docker, by way of the registry"
say "ok"
