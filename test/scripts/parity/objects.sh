# Networks.
docker network create a$X
docker network create a$X
docker network create -d nope b$X
docker network create --subnet 10.217.$([ $X = qdq ] && echo 1 || echo 2).0/24 --gateway 10.217.$([ $X = qdq ] && echo 1 || echo 2).5 --ip-range 10.217.$([ $X = qdq ] && echo 1 || echo 2).128/25 --label l=$X --internal -o com.docker.network.bridge.enable_icc=false c$X
docker network inspect -f '{{json .IPAM.Config}} {{.Internal}} {{json .Options}} {{json .Labels}}' c$X | sed 's/10.217.[12]/NET/g'
~docker network create --subnet bad x$X
docker network create --subnet 10.1.0.0/16 --gateway 10.2.0.1 x$X
docker network create --subnet 10.1.0.0/16 --subnet 10.1.2.0/24 x$X
~docker network create --gateway bad --subnet 10.1.0.0/16 x$X
docker network create
docker network create "bad name $X"
docker network ls -f name=$X
docker network ls -f name=$X -q
docker network ls -f name=$X --no-trunc
docker network ls -f name=$X --format '{{.Name}} {{.Driver}} {{.Scope}} {{.IPv4}} {{.IPv6}} {{.Internal}} {{.Labels}} {{.CreatedAt}} {{.Label "l"}}'
docker network ls -f label=l=$X --format json
docker network ls -f driver=host
docker network ls -f type=builtin
docker network ls -f bad
docker network ls -f nope=1
docker network ls -f name=$X --format raw
docker network list -f name=none$X
docker run -d --name r$X tools sleep 100; docker network connect a$X r$X; docker network connect a$X r$X
docker network connect --alias q --alias r c$X r$X; docker inspect -f '{{json (index .NetworkSettings.Networks "c'$X'").Aliases}}' r$X
~docker network connect --ip bad a$X r$X
docker network connect nope r$X; docker network connect a$X nope
~docker network rm a$X
docker network disconnect a$X r$X; docker network disconnect a$X r$X; docker network disconnect -f c$X r$X; docker network disconnect nope r$X
# After a failed removal Docker prints "exit status 1" as well.
~docker network rm a$X nope
~docker network rm nope
docker network rm -f nope
~docker network rm bridge
docker network prune </dev/null
docker network prune -f --filter label=l=$X
docker network prune -f --filter bad
# Volumes.
docker volume create
docker volume create a$X
docker volume create a$X
docker volume create -d nope b$X
docker volume create --label l=$X -o type=tmpfs -o device=tmpfs -o o=size=1m c$X
docker volume create --name d$X
docker volume create --name d$X e
docker volume create 'bad/name'
docker volume ls -f name=a$X
docker volume ls -q -f name=$X
docker volume ls -f label=l=$X --format '{{.Name}} {{.Driver}} {{.Scope}} {{.Labels}} {{.Mountpoint}} {{.Links}} {{.Size}} {{.Label "l"}} {{.Group}} {{.Status}} {{.Availability}}'
docker volume ls -f label=l=$X --format json
docker volume ls -f name=$X --format 'table {{.Name}}\t{{.Mountpoint}}'
docker volume ls -f name=$X --format raw
docker volume ls -f dangling=true -f name=$X
docker volume ls -f bad
docker volume ls -f nope=1
docker volume list -f name=none$X
docker create --name vu$X -v a$X:/v tools; docker volume rm a$X
docker volume rm nope a$X
docker volume rm -f nope
docker volume rm c$X d$X
docker volume prune </dev/null
docker volume prune -a </dev/null
docker volume prune -f --filter label=none$X
docker volume prune -af --filter label=l=$X
docker rm -v vu$X
