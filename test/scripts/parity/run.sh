# `run` gives the program's output and exit code, and its own failures the codes 125 to 127.
docker run --rm tools echo hello
docker run --rm tools sh -c 'echo out; err oops; exit 3'
docker run --rm tools false
docker run tools nope
docker run tools /etc/notexec
docker run --rm tools /bin
docker run --rm --name a$X tools true && docker ps -aq -f name=a$X
# Names.
docker create --name taken$X tools true
docker run --name taken$X tools true
docker create --name taken$X tools true
docker run --name 'bad!' tools true
# Flags that can't be read.
docker run --foo tools
docker run -Z tools
docker run
docker create
docker run --memory 1x tools
docker run --memory 1k tools true
docker run --cpus many tools
docker run --env =a tools
docker run -p 99999:1 tools
docker run -p a:b tools
docker run -p 1-3:1-2 tools
docker run -p 127.0.0.300:1:1 tools
docker run --expose 1:2 tools
docker run --pull sometimes tools
docker run --rm --restart always tools true
docker run --restart on-failure:x tools true
docker run -d -a stdout tools true
docker run -a nothing tools true
docker run -w rel tools true
docker run --mount type=bind tools true
docker run --mount type=bind,source=/nope-$X,target=/x tools true
docker run --mount type=volume,tmpfs-size=1,target=/x tools true
docker run --mount foo tools true
docker run --mount foo=bar,target=/x tools true
docker run --device nope tools true
docker run --add-host bad tools true
docker run --add-host bad:1.2.3 tools true
docker run --dns bad tools true
docker run --network nope$X tools true
docker run --network name=x,foo=bar tools true
docker run --ulimit nofile tools true
docker run --ulimit nope=1 tools true
docker run --health-cmd x --no-healthcheck tools true
docker run --health-interval x tools true
docker run --security-opt bad tools true
docker run --security-opt seccomp=/nope tools true
docker run --env-file /nope tools true
docker run --label-file /nope tools true
docker run --platform a/b/c/d tools true
docker run --stop-signal BAD tools true
docker run --cap-add NOPE tools true
docker run --blkio-weight 5 tools true
# Docker lets the engine fail to read these.
~docker run --link-local-ip bad tools true
~docker run --ip bad tools true
~docker run --mac-address bad tools true
docker run --gpus bad=x,y tools true
docker run --volumes-from nope tools true
docker run -v /a:/b:/c:/d tools true
docker run -v relative/x:/b tools true
docker run --tmpfs /x:bad=1 tools true
docker run --runtime nope tools true
docker run --ipc bad tools true
docker run --pid bad tools true
docker run --userns bad tools true
docker run --log-driver nope tools true
# We say that it is not used.
~docker run --kernel-memory 1g --rm tools true
docker run INVALID true
docker run --pull never nosuch$X true
docker create --pull never nosuch$X true
# Environment.
docker run --rm -e A=1 -e B -e HOME=/x --env-file <(printf '# c\nC=3\nB\nD=a b \n') tools env | grep -v HOSTNAME
B=fromhere docker run --rm -e B tools sh -c 'echo $B'
printf 'no space=1\n' >env; docker run --env-file env tools true
# Working directory, user, volumes, mounts.
docker run --rm -w /tmp tools pwd
docker run --rm -u 1000:1000 tools id
docker run --rm -u worker tools id
docker run --rm -u nobody$X tools id
echo data >f; docker run --rm -v $PWD/f:/f:ro tools cat /f
echo data >f; docker run --rm -v ./f:/f tools cat /f
docker run --rm -v vol$X:/v tools write /v/a hi; docker run --rm --mount src=vol$X,dst=/v,readonly tools cat /v/a
docker run --rm --mount type=bind,src=$PWD,dst=/d,bind-propagation=rslave tools ls /d
docker run --rm --mount type=tmpfs,dst=/d,tmpfs-size=1m,tmpfs-mode=1777 tools ls /d
docker run --rm --read-only tools write /a b
# Standard input, entry point, id file.
echo typed | docker run --rm -i tools cat
docker run --rm tools cat </dev/null
docker run --rm -it tools true </dev/null
docker run --rm -t tools echo tty
docker run --rm --entrypoint echo tools one two
docker run --rm --entrypoint "" tools echo cleared
docker run --rm --cidfile id tools true; cat id
docker run --rm --cidfile id tools true
docker create --cidfile id tools true
# Detached.
docker run -d --name d$X tools sleep 100
docker inspect -f '{{.State.Status}} {{.Config.AttachStdout}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.AutoRemove}}' d$X
docker kill d$X; docker wait d$X
docker run -d --name bad$X tools nope
docker run -a stderr --rm tools sh -c 'echo out; err oops'
docker run -a stdin -a stdout -i --rm tools cat <<<typed
# Killed by a signal.
"$CLI" run --name k$X --rm tools sleep 100 & p=$!; for i in $(seq 100); do docker kill k$X >/dev/null 2>&1 && break; sleep 0.05; done; wait $p; echo $?
# Signals go to the program in the container; it ends with 7 at SIGTERM.
"$CLI" run --name s$X --rm tools trap >out & p=$!; for i in $(seq 100); do grep -q ready out && break; sleep 0.05; done; kill -USR1 $p; sleep 0.2; kill -TERM $p; wait $p; echo $?; cat out
# What the request says, for every flag. Empty and missing are the same.
docker create --name f$X --annotation a=b --blkio-weight 100 --cap-add NET_ADMIN --cap-drop all --cgroupns host --cpu-period 50000 --cpu-quota 20000 -c 512 --cpuset-cpus 0 \
  --device /dev/null:/dev/n:r --device-cgroup-rule 'c 1:3 r' --dns 1.1.1.1 --dns-option ndots:1 --dns-search example.com --domainname d --expose 80-82 --expose 53/udp --group-add 5 \
  --health-cmd true --health-interval 1m --health-retries 2 --health-start-interval 2s --health-start-period 3s --health-timeout 4s -h host --init -l a=b --label c --log-driver json-file --log-opt max-size=1m \
  -m 64m --memory-reservation 32m --memory-swap 128m --memory-swappiness 10 --oom-score-adj 10 --pids-limit 50 -p 127.0.0.1:0:80/tcp -p 8000-8002:90-92 -P --restart on-failure:3 --shm-size 1m --stop-signal USR1 --stop-timeout 5 \
  --sysctl net.ipv4.ip_forward=1 --tmpfs /t:size=1m --tmpfs /u --ulimit nofile=10:20 --ulimit core=-1 -u 1 -w /tmp -e A=b --read-only --security-opt no-new-privileges --security-opt label=disable --ipc private --pid host --uts host -t -i tools sleep 1
docker inspect -f '{{json .HostConfig}}' f$X | nulls
docker inspect -f '{{json .Config}}' f$X | nulls
docker create --name g$X -v /anon -v named$X:/n:ro -v /tmp:/b --mount type=volume,dst=/m,volume-label=a=b,volume-driver=local,volume-nocopy --mount type=bind,src=/tmp,dst=/x,bind-recursive=disabled --add-host a:1.2.3.4 --add-host b=::1 --add-host c:host-gateway --network bridge -a stdout --no-healthcheck --oom-kill-disable=false --userns host --volume-driver local tools
# The stock client keeps volumes in a map: their order is by chance.
docker inspect -f '{{json .HostConfig}} {{json .Config}}' g$X | nulls | sed -E 's#("/tmp:/b"),("named[a-zA-Z]*:/n:ro")#\2,\1#'
docker network create n$X >/dev/null; docker create --name h$X --network n$X --network-alias x --network-alias y --mac-address 02:42:ac:11:00:09 tools; docker inspect -f '{{json .NetworkSettings.Networks}} {{json .HostConfig.Links}}' h$X | tr '{},' '\n\n\n' | sort
docker network create --subnet 10.216.$([ $X = qdq ] && echo 1 || echo 2).0/24 m$X >/dev/null; docker run --rm --network name=m$X,ip=10.216.$([ $X = qdq ] && echo 1 || echo 2).77,alias=q tools true
docker create --name i$X --network n$X --network m$X --ip 10.1.1.1 tools; docker create --name i$X --network host --network m$X tools; docker create --name j$X --network host --network-alias x tools
