# Contexts: named engines, in a store that both command lines share.
docker context create "o/x"
docker context create default
docker context create a
docker context create
docker context create on$X --docker host=unix:///tmp/x.sock --description 'the one'
docker context create on$X
docker context create two$X --from on$X
docker context create ssh$X --docker host=ssh://me@h:22
docker context create bad$X --docker host=nope
docker context create bad$X --docker foo=bar
docker context create bad$X --docker host=tcp://1.2.3.4:2376,ca=/nope
docker context create bad$X --from nope
docker context create bad$X --from on$X --docker host=unix:///x
docker context create fr$X --docker from=on$X
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem -out c.pem -subj /CN=x -days 1 2>/dev/null
docker context create tls$X --docker host=tcp://1.2.3.4:2376,ca=c.pem,cert=c.pem,key=k.pem,skip-tls-verify=true
docker context inspect tls$X
docker context inspect on$X two$X -f '{{.Name}} {{.Endpoints.docker.Host}}'
docker context inspect nope
docker context inspect default -f '{{.Storage.MetadataPath}} {{.TLSMaterial}}'
docker context export tls$X
# Docker's tar has no end.
(tar tvf tls$X.dockercontext 2>/dev/null || true) | sed 's/ *[0-9]* 1970/ 1970/'
docker context export tls$X
docker context export nope -
docker context import im$X tls$X.dockercontext
docker context import im$X tls$X.dockercontext
docker context import im2$X nofile
docker context export im$X - | docker context import im3$X -
docker context inspect im3$X
docker context update im3$X --description new --docker host=tcp://9.9.9.9:1
docker context inspect im3$X
docker context update nope --description x
docker context update default --description x
unset TARE_HOST; docker context ls
unset TARE_HOST; docker context ls -q
unset TARE_HOST; docker context ls --format json
unset TARE_HOST; docker context ls --format '{{.Name}}|{{.DockerEndpoint}}|{{.Current}}|{{.Description}}|{{.Error}}'
docker context show
unset TARE_HOST; docker context use nope
unset TARE_HOST; docker context use on$X
unset TARE_HOST DOCKER_HOST; docker context show; docker context ls | grep -v default
unset TARE_HOST; docker context ls
unset TARE_HOST DOCKER_HOST; docker context inspect | sed -n 1,3p
unset TARE_HOST DOCKER_HOST; docker context rm on$X
unset TARE_HOST DOCKER_HOST; docker context use default; docker context show
unset TARE_HOST; docker context use default
DOCKER_CONTEXT=two$X docker context show
unset TARE_HOST DOCKER_HOST; DOCKER_CONTEXT=two$X docker context show
unset TARE_HOST DOCKER_HOST; DOCKER_CONTEXT=nope docker context ls | grep nope
unset TARE_HOST DOCKER_HOST; DOCKER_CONTEXT=nope docker ps
docker --context nope ps
docker --context on$X -H unix:///x ps
# The one program says more than the other.
~~docker --context on$X ps
# An engine by its context.
docker context create real$X --docker host=$DOCKER_HOST
unset TARE_HOST DOCKER_HOST; docker --context real$X ps -q
unset TARE_HOST DOCKER_HOST; docker context use real$X; docker ps -q; docker context use default
docker context rm default
docker context rm nope
docker context rm -f nope
docker context rm on$X two$X nope
docker context show x
# The other program reads what this one wrote.
docker context create shared$X --docker host=unix:///s --description both; "$OTHER" context inspect shared$X -f '{{.Name}} {{.Endpoints.docker.Host}}'
"$OTHER" context create theirs$X --docker host=unix:///t; docker context inspect theirs$X
