# Images and containers as files.
docker run --name c$X -e A=1 tools write /new text
docker commit c$X; docker commit c$X com$X; docker commit -m msg -a me -c 'CMD ["cat","/new"]' -c 'ENV B=2' c$X com$X:two
docker run --rm com$X:two
docker inspect -f '{{.Author}} {{.Comment}} {{.Config.Env}} {{.Config.Cmd}}' com$X:two
docker commit -p=false c$X com$X:three
# The engine's parser guesses what was meant.
~docker commit -c 'BAD x' c$X
docker commit nope x; docker commit c$X 'BAD:x'; docker commit
docker export c$X | tar -xOf - new
docker export -o exp.tar c$X; tar -xOf exp.tar new; stat -c %a exp.tar
docker export nope; docker export -o /nope/x c$X; docker export
docker import exp.tar imp$X; docker run --rm imp$X cat /new
docker import -m 'a message' -c 'CMD ["cat","/new"]' - imp$X:two <exp.tar; docker run --rm imp$X:two; docker inspect -f '{{.Comment}}' imp$X:two
docker import exp.tar
docker import nope.tar; docker import; echo bad | docker import - x$X
docker import --platform linux/arm64 exp.tar imp$X:arm; docker inspect -f '{{.Architecture}}' imp$X:arm
docker save com$X | tar -tf - | grep -c -e manifest.json -e index.json
docker save -o s.tar com$X:two imp$X; stat -c %a s.tar
docker save nope; docker save -o /nope/x com$X; docker save
docker rmi com$X:two imp$X | grep Untagged
docker load -i s.tar
docker load <s.tar
docker load -q -i s.tar
docker load -i nope.tar; echo bad | docker load; docker load x
docker run --rm com$X:two
gzip -k s.tar; docker load -i s.tar.gz
docker image save com$X | docker image load
