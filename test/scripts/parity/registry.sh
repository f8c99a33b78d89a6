# Push and pull, without a terminal.
docker tag tools $R/p$X && docker tag tools $R/p$X:two
~docker push $R/p$X | sort | sed 's/from .*/from it/'
docker push -q $R/p$X:two
~docker push -a $R/p$X | sort | sed 's/from .*/from it/'
docker push -a $R/p$X:two
docker push $R/nope$X
docker push 'BAD:x'
docker rmi $R/p$X $R/p$X:two | grep -c Untagged
docker pull $R/p$X
docker pull $R/p$X
docker pull -q $R/p$X:two
docker pull $R/p$X@$(docker inspect -f '{{index .RepoDigests 0}}' $R/p$X:two | cut -d@ -f2)
docker pull -a $R/p$X
docker pull -a $R/p$X:two
docker pull -aq $R/p$X
docker pull $R/nope$X
docker pull $R/p$X:nope
docker pull 'BAD'
docker pull
~docker pull --platform bad/x/y/z $R/p$X
docker rmi -f $R/p$X:two >/dev/null; docker run --rm $R/p$X:two echo pulled
docker rmi -f $R/p$X:two >/dev/null; docker run -q --rm $R/p$X:two echo pulled
docker run --rm --pull always $R/p$X:two echo pulled
docker create --pull always -q $R/p$X:two
docker run $R/nope$X true
docker create $R/nope$X true
docker images $R/p$X --digests --format '{{.Repository}} {{.Tag}} {{if .Digest}}digest{{end}}'
# A registry that wants a name and a password.
docker login $AUTH -u me -p wrong
# Docker advertises its documentation here.
~docker login $AUTH -u me --password-stdin <<<secret; cat .config/config.json
~docker login $AUTH </dev/null
docker tag tools $AUTH/x$X; docker push -q $AUTH/x$X; docker pull -q $AUTH/x$X
docker logout $AUTH; cat .config/config.json; docker logout $AUTH
docker push -q $AUTH/x$X
docker login -p x </dev/null
docker login --password-stdin $AUTH </dev/null
docker login $AUTH -u me -p a --password-stdin </dev/null
docker login $AUTH -u me </dev/null
docker login a b
