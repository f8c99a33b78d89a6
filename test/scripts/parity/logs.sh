# What a container wrote.
docker run --name a$X tools sh -c 'echo one; echo two; echo three'
docker run --name e$X tools err bad; docker logs e$X
docker logs a$X
docker logs -n 1 a$X
docker logs --tail 2 a$X
docker logs --tail 0 a$X
docker logs --tail x a$X
docker logs --tail all a$X
docker logs -t a$X
docker logs --since 1h a$X
docker logs --until 1h a$X
docker logs --since 2000-01-01T00:00:00Z --until 2000-01-02T00:00:00Z a$X
docker logs --since bad a$X
docker logs -f a$X
docker logs --details a$X
docker logs nope
# tare takes several containers.
~~docker logs
docker create --name b$X tools true; docker logs b$X
docker run --name t$X -t tools echo tty; docker logs t$X
docker run -d --name f$X tools tick 4 100ms; docker logs -f f$X
docker run -d --name g$X --log-driver none tools echo x; docker logs g$X
docker container logs a$X
