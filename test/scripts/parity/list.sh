# Lists of containers, and what their columns, filters and templates show.
docker run -d --name up$X -l a=b -l c=$X -p 127.0.0.1::80 -v vol$X:/v tools sleep 100
docker run --name out$X -l c=$X tools exit 3
docker create --name made$X -l c=$X --expose 81 --expose 82-83 tools echo "a long command line that has to be cut"
docker run -d --name paused$X -l c=$X tools sleep 100 && docker pause paused$X
docker ps -a -f label=c=$X
docker ps -f label=c=$X
docker ps -a -q -f label=c=$X
docker ps -a --no-trunc -f label=c=$X
docker ps -a -s -f label=c=$X
docker ps -n 2 | sed 's/q.q//'
docker ps -n 2 -q
docker ps -l | sed 's/q.q//'
docker ps -lq --no-trunc
docker ps -a -f status=exited | sed 's/q.q//'
docker ps -a -f status=created -f status=exited --format '{{.Names}}' | sed 's/q.q//'
docker ps -a -f exited=3 --format '{{.Names}}: {{.Status}} {{.State}}' | sed 's/q.q//'
docker ps -a -f name=up$X --format 'table {{.Names}}\t{{.Image}}\t{{.Labels}}\t{{.Mounts}}\t{{.LocalVolumes}}\t{{.Networks}}'
docker ps -a -f name=up$X --format 'table {{.ID}}\t{{.Command}}\t{{.CreatedAt}}\t{{.RunningFor}}\t{{.Ports}}\t{{.Size}}'
docker ps -a -f label=c=$X --format json
docker ps -a -f label=c=$X --format '{{json .}}'
docker ps -a -f label=c=$X --format '{{json .Names}}'
docker ps -a -f label=c=$X --format '{{.Label "c"}} {{.Label "nope"}}'
docker ps -a -f label=c=$X --format 'table {{.Names}}\t{{.Label "c"}}'
docker ps -a -f label=c=$X --format table
docker ps -a -f label=c=$X --format '{{upper .Names}} {{truncate .Names 3}} {{pad .Names 2 2}}|{{join (split .Names "e") "-"}}{{lower "X"}}{{title "abc"}}{{println "x"}}'
docker ps -a -f label=c=$X --format raw
# Of a wrong template Docker's message names a type of its own.
~docker ps --format '{{.Nope}}'
~docker ps -a --format '{{.Nope}}'
~docker ps --format '{{'
~docker ps --format 'table {{.Names}} {{range}}'
docker ps -f nope=1
docker ps -f status=nope
docker ps -f bad
docker ps extra
docker ps --bad
docker ps -n x
docker ps -f name=none$X
docker ps -f name=none$X -q
docker ps -f name=none$X --format json
docker ps -f name=none$X --format '{{.ID}}'
docker container ls -a -f label=c=$X --format '{{.Names}}'
docker container list -a -f label=c=$X --format '{{.Names}}'
docker container ps -a -f label=c=$X --format '{{.Names}}'
docker ps -a -f ancestor=tools -f label=c=$X --format '{{.Names}}'
docker ps -a -f volume=vol$X --format '{{.Names}}'
docker ps -a -f before=out$X -f label=c=$X --format '{{.Names}}'
docker ps -a -f since=out$X -f label=c=$X --format '{{.Names}}'
# Ports and processes.
docker port up$X | sed 's/:[0-9]*$//'
docker port up$X 80 | sed 's/:[0-9]*$//'
docker port up$X 80/tcp | sed 's/:[0-9]*$//'
docker port up$X 81
docker port up$X x
docker port made$X
docker port nope
docker top up$X | awk '{print $1, $NF}'
docker top up$X -o pid,comm | tail -1 | awk '{print $2}'
docker top up$X -eo args | tail -1
docker top made$X
docker top nope
# Changes.
docker run --name ch$X tools sh -c 'write /a 1; rm /etc/notexec; mkdir /d'
docker diff ch$X
docker diff nope
docker diff
# Stats.
docker stats --no-stream --format 'table {{.Name}}\t{{.Container}}' up$X
docker stats --no-stream --format '{{json .}}' up$X | tr ',' '\n' | cut -d: -f1
docker stats --no-stream --format json made$X
docker stats --no-stream made$X nope
docker stats --no-stream made$X
