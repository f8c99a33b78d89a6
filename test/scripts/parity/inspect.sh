# Details of one thing or many.
docker create --name c$X -l a=b tools sleep 1; docker network create n$X; docker volume create v$X; docker tag tools i$X
docker inspect c$X | sed -n '1,/HostConfig/p'
docker inspect i$X | grep -v -e ':latest'
docker inspect n$X | sed -E 's#"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+(/[0-9]+)?#"IP#'
docker inspect v$X
docker inspect c$X n$X v$X -f '{{json .}}' | cut -c1-4
docker inspect --type container c$X -f '{{.Name}}'
docker inspect --type network n$X -f '{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}}'
docker inspect --type volume v$X -f '{{.Name}} {{.Driver}}'
docker inspect --type image i$X -f '{{.Id}} {{.Os}} {{.Architecture}} {{index .RepoTags 0}}'
docker inspect --type image c$X
# Docker knows kinds that we don't.
~docker inspect --type bad c$X
~docker inspect --type '' c$X
docker inspect nope
docker inspect nope c$X -f '{{.Name}}'
# Docker ends its output with an empty line then.
~~docker inspect -f '{{.Nope}}' c$X
~~docker inspect -f '{{.State.Nope}}' c$X
docker inspect -f '{{' c$X
docker inspect -f json c$X | cut -c1-3
docker inspect -f '{{json .Config.Labels}} {{.HostConfig.NetworkMode}} {{len .Mounts}} {{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{end}}' c$X
docker inspect -f '{{.Created}} {{.State.StartedAt}} {{.State.Pid}} {{.RestartCount}} {{.Id}} {{.Image}} {{.Path}} {{.Args}}' c$X
docker inspect -s -f '{{.SizeRw}} {{.SizeRootFs}}' c$X
docker inspect -f '{{.SizeRw}}' c$X
docker inspect -f '{{.NetworkSettings.IPAddress}}|{{.NetworkSettings.Networks.bridge.IPAddress}}' c$X
docker inspect -f '{{println .Name}}' c$X
docker inspect -f '{{.Config.Cmd}} {{.Config.Entrypoint}} {{.Config.Env}}' i$X
docker inspect -f '{{.Size}} {{.RootFS.Layers}} {{.Created}} {{.GraphDriver.Name}}' i$X
docker inspect
docker container inspect c$X -f '{{.Name}}'
docker container inspect nope
docker container inspect nope c$X -f '{{.Name}}'
docker image inspect i$X -f '{{len .RepoTags}}'
docker image inspect i$X --platform linux/amd64 -f '{{.Architecture}}'
docker image inspect nope i$X | grep -v :latest
docker network inspect n$X -f '{{range .IPAM.Config}}{{if .Subnet}}subnet{{end}}{{end}} {{.Labels}}'
docker network inspect nope
docker network inspect -v n$X -f '{{.Name}}'
docker volume inspect v$X -f '{{.Mountpoint}}'
docker volume inspect nope
docker volume inspect nope v$X | grep -c Name
