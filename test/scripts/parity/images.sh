# Lists of images, tags, history.
docker tag tools img$X:one && docker tag tools img$X:two && docker tag tools img$X
docker images img$X
docker images img$X:one
docker images -q img$X
docker images --no-trunc img$X
docker images --digests img$X
docker images 'img$X:t*' 
docker images img$X --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}} {{.Digest}}'
docker images img$X --format 'table {{.Repository}}\t{{.Tag}}\t{{.CreatedAt}}\t{{.CreatedSince}}\t{{.Containers}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.VirtualSize}}'
docker images img$X --format json
docker images img$X:one --format '{{json .}}'
docker images img$X --format raw
docker images -f reference="img$X:o*"
docker images -f dangling=true
docker images -f before=img$X:one -q
docker images -f label=none
docker images -f bad
docker images -f nope=1
docker images --format '{{'
docker images none$X
docker images none$X -q
docker images a b
docker images -a img$X -q
docker image ls img$X --format '{{.Tag}}'
docker image list img$X --format '{{.Tag}}'
# Images without a name.
printf 'FROM tools\nLABEL x=%s\n' $X | DOCKER_BUILDKIT=0 docker build -q -t dang$X - 2>/dev/null >/dev/null; printf 'FROM tools\nLABEL x=%s y=z\n' $X | DOCKER_BUILDKIT=0 docker build -q -t dang$X - >/dev/null 2>&1; docker images -f dangling=true -f label=x=$X
docker images -f dangling=true -f label=x=$X --digests
docker images -f dangling=true -f label=x=$X -q | wc -l
# A configuration is some bytes longer or shorter by the digits of its time.
docker image prune -f --filter label=x=$X | sed -E 's/sha256:.*/ID/; s/[0-9]+B$/SIZE/'
# History.
docker history img$X
docker history --no-trunc img$X
docker history -q img$X
docker history -H=false img$X | awk '{print $1, $NF}'
docker history --format '{{.ID}}|{{.CreatedBy}}|{{.Comment}}|{{.Size}}|{{.CreatedAt}}' dang$X
docker history --format json dang$X
docker history dang$X
docker history nope
docker image history -q dang$X
# Tags and removal.
docker tag nope x
docker tag img$X:one 'BAD:x'
docker tag img$X:one
docker rmi img$X:one img$X:nope
docker rmi nope
docker rmi
docker create --name uses$X dang$X true; docker rmi dang$X
docker rmi -f dang$X | sed 's/sha256:.*/ID/'
docker rm uses$X
docker image rm img$X:two
docker image remove img$X
docker rmi --no-prune nope
docker image prune </dev/null
docker image prune -a </dev/null
docker image prune -f --filter until=1h --filter label=none$X
