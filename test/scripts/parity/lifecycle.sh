# From created to removed.
docker create --name a$X tools sleep 100
docker start a$X
docker start a$X
docker start a$X nope
docker start
docker pause a$X; docker pause a$X; docker unpause a$X; docker unpause a$X; docker pause nope
docker rename a$X b$X
docker rename b$X b$X
docker rename nope x
docker rename b$X 'bad!'
docker restart -t 0 b$X nope
docker restart -s KILL b$X
docker update --memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 20 --restart always b$X
docker inspect -f '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}' b$X
docker update b$X
docker update --memory 64m nope
docker update --restart bad b$X
docker update --restart no --cpu-shares 100 b$X nope
docker stop -s KILL b$X
docker stop b$X
docker stop nope b$X
docker wait b$X nope
docker kill b$X
docker kill -s BAD b$X
docker rm b$X nope
docker rm nope; docker rm -f nope; docker rm
docker run -d --name c$X tools sleep 100; docker rm c$X; docker rm -f c$X
docker run -d --name c$X tools trap; docker kill -s USR1 c$X; docker stop -s KILL c$X; docker rm -v c$X
docker run -d --name w$X tools sh -c 'sleep 0.3; exit 7'; docker wait w$X; docker wait w$X
# start -a gives output and exit code; -i the input.
docker create --name s$X tools sh -c 'echo started; exit 4'
docker start -a s$X
docker create -i --name i$X tools cat
echo typed | docker start -ai i$X
echo typed | docker start -i i$X
docker start -a nope
docker start -a s$X i$X
docker create --name n$X tools nope; docker start n$X; docker start -a n$X
# attach.
docker attach s$X
docker attach nope
docker run -d --name at$X tools sh -c 'sleep 0.7; echo late; exit 5'; docker attach at$X
docker run -d --name pa$X tools sleep 100; docker pause pa$X; docker attach pa$X; docker rm -f pa$X
docker run -d --name ns$X tools sh -c 'sleep 0.5; echo x'; docker attach --no-stdin --sig-proxy=false ns$X
# exec.
docker run -d --name e$X -e A=1 tools sleep 100
docker exec e$X echo hi
docker exec e$X sh -c 'echo out; err oops; exit 9'
docker exec -e B=2 -e A=3 e$X env | grep -v -e HOME -e PATH -e HOSTNAME
docker exec --env-file <(echo C=4) e$X sh -c 'echo $C'
docker exec -w /tmp e$X pwd
docker exec -u 1000:1000 e$X id
docker exec -u worker e$X id
docker exec -u nobody$X e$X id
echo typed | docker exec -i e$X cat
docker exec e$X cat </dev/null
docker exec -t e$X echo tty
docker exec -it e$X echo tty </dev/null
docker exec -d e$X write /tmp/x y; sleep 0.3; docker exec e$X cat /tmp/x
docker exec e$X nope
docker exec -d e$X nope
docker exec e$X /etc/notexec
docker exec -w /nope e$X pwd
docker exec nope true
docker exec s$X true
docker exec e$X
docker exec --bad e$X true
docker pause e$X; docker exec e$X true; docker unpause e$X
docker exec --privileged e$X true
# Pruning asks, and takes y for yes.
docker container prune </dev/null
echo n | docker container prune
docker container prune -f --filter label=none$X
docker container prune -f --filter bad
