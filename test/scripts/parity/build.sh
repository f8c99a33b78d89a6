# Builds, by the builder that is the engine's.
mkdir ctx; printf 'FROM tools\nARG V=none\nCOPY f /f\nRUN write /v $V\nENV A=$V\nCMD ["cat","/f"]\n' >ctx/Dockerfile; echo hello >ctx/f
docker build -t b$X ctx | grep -v 'Using cache'
docker build -t b$X -t b$X:two ctx
docker build -q -t b$X ctx
docker run --rm b$X
docker build -t b$X --build-arg V=7 ctx >/dev/null; docker run --rm b$X cat /v; docker inspect -f '{{.Config.Env}}' b$X
V=fromenv docker build -q --build-arg V -t b$X ctx >/dev/null; docker run --rm b$X cat /v
docker build -t b$X --label l=m --no-cache ctx | grep -c Running; docker inspect -f '{{.Config.Labels}}' b$X
docker build --iidfile id -q ctx; test "$(cat id)" = "$(docker build -q ctx 2>/dev/null)"; echo $?
# Where the Dockerfile and the context come from.
printf 'FROM tools\nRUN write /x piped\n' | docker build -q -t p$X - && docker run --rm p$X cat /x
printf 'FROM tools\nCOPY f /g\n' | docker build -q -t p$X -f - ctx && docker run --rm p$X cat /g
tar -C ctx -cf - . | docker build -q -t p$X - && docker run --rm p$X
tar -C ctx -czf - . | docker build -q -t p$X - && docker run --rm p$X
mkdir other; printf 'FROM tools\nCOPY f /h\n' >other/D; docker build -q -t p$X -f other/D ctx && docker run --rm p$X cat /h
cp ctx/Dockerfile ctx/Second; docker build -q -t p$X -f ctx/Second ctx && docker run --rm p$X
(cd ctx && docker build -q -t p$X . && docker run --rm p$X)
printf 'FROM tools AS one\nRUN write /s 1\nFROM tools AS two\nRUN write /s 2\n' | docker build -q --target one -t p$X - && docker run --rm p$X cat /s
# .dockerignore.
mkdir -p ign/keep ign/drop; touch ign/a ign/b.log ign/keep/x.log ign/drop/y; printf '*.log\ndrop\n!keep/x.log\n' >ign/.dockerignore; printf 'FROM tools\nCOPY . /i\n' >ign/Dockerfile
docker build -q -t i$X ign >/dev/null; docker run --rm i$X ls /i; docker run --rm i$X ls /i/keep
# Failures.
printf 'FROM tools\nRUN sh -c "err oops; exit 4"\n' | docker build -
printf 'FROM tools\nNOPE x\n' | docker build -
printf 'FROM tools\nCOPY nope /\n' >ctx/Bad; docker build -f ctx/Bad ctx
printf '' | docker build -
printf 'RUN true\n' | docker build -
printf 'FROM nosuch.invalid/x\n' | docker build -q - >/dev/null
printf 'FROM tools\n' | docker build --target nope -
docker build -t BAD:x ctx
docker build nope
docker build ctx/f
docker build -f nope ctx
mkdir empty; docker build empty
docker build --build-arg =x ctx
docker build --ulimit bad ctx
docker build -f - - </dev/null
docker build
docker build --bad ctx
docker build --network none -q ctx >/dev/null
docker image build -q ctx >/dev/null; docker builder build -q ctx >/dev/null
# The cache.
docker builder prune </dev/null
docker builder prune -f >/dev/null
docker builder prune -f --filter bad
