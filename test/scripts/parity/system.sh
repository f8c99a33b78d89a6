# The engine as a whole.
docker version -f '{{.Server.Version}} {{.Server.Os}} {{.Server.Arch}} {{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Client.Os}} {{.Client.Arch}}'
docker version -f '{{(index .Server.Components 0).Name}} {{.Server.KernelVersion}} {{.Client.Context}} {{.Server.Platform.Name}}'
~docker version -f '{{.Nope}}' >/dev/null
docker version | grep -A3 Engine
docker version --format json | tr ',{' '\n\n' | cut -d: -f1 | sort -u
docker version x
docker info -f '{{.ServerVersion}} {{.Driver}} {{.OSType}} {{.NCPU}} {{.ID}} {{.Swarm.LocalNodeState}} {{len .Runtimes}}'
docker info -f '{{json .Plugins}} {{json .SecurityOptions}} {{.LoggingDriver}} {{.CgroupDriver}} {{.CgroupVersion}} {{.DockerRootDir}}'
# Docker ends its output with an empty line then.
~~docker info --format '{{.Nope}}'
~docker info | sed -n '/^Server/,$p'
docker info -f json | tr ',{' '\n\n' | grep -o '^"[A-Z][A-Za-z]*"' | sort -u | grep -v -e ClientInfo -e '"Context"'
docker system info -f '{{.Name}}'
# Disk use.
docker run --name ev$X tools write /big $(seq 1000 | tr '\n' ' ')
docker system df
docker system df --format '{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}'
docker system df --format json
docker system df --format '{{json .}}'
docker system df -v | sed -n '1,/^Build cache/p' | grep -v write
docker system df -v --format '{{json .}}' | tr ',{[' '\n\n\n' | cut -d: -f1 | sort -u
docker system df -v --format '{{range .Images}}{{.Repository}} {{.Size}}{{end}}'
docker system df x
# Events. "until 0s" is the present second's beginning: wait until that is after the container's end.
until docker events --since 1h --until 0s -f container=ev$X -f event=die | grep -q .; do :; done
docker events --since 1h --until 0s --filter container=ev$X --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}'
docker events --since 1h --until 0s -f container=ev$X | sed 's/^TIME//'
docker events --since 1h --until 0s -f container=ev$X -f event=create --format json | tr ',{' '\n\n' | cut -d: -f1
docker events --since 1h --until 0s -f container=ev$X -f event=create --format '{{json .Actor.Attributes}}'
docker events --since 1h --until 0s -f container=ev$X -f event=die --format '{{.Status}} {{.ID}} {{.From}} {{.Scope}} {{.Time}}'
docker events --since bad --until 0s
docker events -f bad
docker events --format '{{' --since 1h --until 0s
~docker events --since 1h --until 0s -f container=ev$X -f event=die --format '{{.Nope}}'
docker system events --since 1h --until 0s -f container=ev$X --format '{{.Action}}'
# Pruning everything.
docker system prune </dev/null
docker system prune -a --volumes </dev/null
docker system prune -f --filter label=none$X
docker system prune -f --filter bad
# Commands there are not, and help.
docker nope
~docker container nope
docker --bad
docker ps --help | sed -n 1,3p | sed s/tare/docker/
docker container ls --help | sed -n 5,6p | sed s/tare/docker/g
docker help ps | sed -n 1,1p | sed s/tare/docker/
# We say what to do about it.
~docker -H tcp://127.0.0.1:1 ps
~docker -H bad://x ps
~docker -H unix:///nope ps
~docker -H unix:///nope run tools
