"""Debian's python3-docker against the engine that DOCKER_HOST names: what its users do in a day."""
import io
import sys
import tarfile
import threading

import docker

image, folder = sys.argv[1], sys.argv[2]
client = docker.from_env(timeout=30)


def equal(got, want, what):
    if got != want:
        sys.exit(f"{what}: got {got!r}, want {want!r}")


equal(client.ping(), True, "ping")
equal(client.version()["Os"], "linux", "version")

built, log = client.images.build(path=folder, tag="py:1", buildargs={"WORD": "built"}, rm=True)
equal(any("Successfully built" in line.get("stream", "") for line in log), True, "the build's log")
equal(client.containers.run("py:1", "cat /word", remove=True), b"built\n", "run")

try:
    client.containers.run(image, "sh -c 'echo bad >&2; exit 3'", remove=True)
    sys.exit("a failed run is no error")
except docker.errors.ContainerError as e:
    equal((e.exit_status, e.stderr), (3, b"bad\n"), "the failed run")
try:
    client.containers.get("nope")
    sys.exit("a missing container is no error")
except docker.errors.NotFound:
    pass

network = client.networks.create("py-net", driver="bridge", labels={"a": "b"})
volume = client.volumes.create("py-data")
server = client.containers.run(image, "httpd -f -p 80 -h /www", name="py-web", detach=True, network="py-net", ports={"80/tcp": ("127.0.0.1", None)},
                               volumes={"py-data": {"bind": "/data", "mode": "rw"}}, environment={"A": "b"}, mem_limit="64m", labels={"who": "py"})
equal(client.containers.run(image, "wget -q -O - http://py-web", remove=True, network="py-net"), b"hello\n", "the name on the network")
server.reload()
equal(server.status, "running", "status")
equal(server.attrs["HostConfig"]["Memory"], 64 << 20, "the limit")
equal(server.ports["80/tcp"][0]["HostIp"], "127.0.0.1", "the port")

code, out = server.exec_run(["sh", "-c", "echo out; echo err >&2; exit 5"], demux=True)
equal((code, out), (5, (b"out\n", b"err\n")), "exec")
_, stream = server.exec_run("sh -c 'for i in 1 2 3; do echo $i; done'", stream=True)
equal(b"".join(stream), b"1\n2\n3\n", "a stream of an exec")
sock = server.exec_run("cat", stdin=True, socket=True).output
sock._sock.sendall(b"typed\n")
sock._sock.shutdown(1)
equal(sock.read()[8:], b"typed\n", "an exec's input")

files = io.BytesIO()
with tarfile.open(fileobj=files, mode="w") as tar:
    info = tarfile.TarInfo("put")
    info.size = 5
    tar.addfile(info, io.BytesIO(b"there"))
equal(server.put_archive("/data", files.getvalue()), True, "put_archive")
bits, stat = server.get_archive("/data/put")
equal((stat["name"], stat["size"]), ("put", 5), "get_archive's stat")
with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as tar:
    equal(tar.extractfile("put").read(), b"there", "get_archive")

stats = server.stats(stream=False)
equal(stats["memory_stats"]["limit"], 64 << 20, "stats")
equal(any("httpd" in " ".join(p) for p in server.top()["Processes"]), True, "top")
equal([c.name for c in client.containers.list(filters={"label": "who=py"})], ["py-web"], "a filtered list")
server.rename("py-renamed")
server.pause()
server.reload()
equal(server.status, "paused", "pause")
server.unpause()
server.update(mem_limit="32m", memswap_limit="64m")
server.reload()
equal(server.attrs["HostConfig"]["Memory"], 32 << 20, "update")
committed = server.commit("py", "2", changes=["CMD [\"true\"]"])
equal(committed.attrs["Config"]["Cmd"], ["true"], "commit")

worker = client.containers.create(image, "sh -c 'read line; echo got $line'", stdin_open=True)
seen = []
listener = client.events(decode=True, filters={"container": worker.id, "event": "die"})
thread = threading.Thread(target=lambda: seen.append(next(iter(listener))))
thread.start()
attached = worker.attach_socket(params={"stdin": 1, "stream": 1})
worker.start()
attached._sock.sendall(b"input\n")
equal(worker.wait()["StatusCode"], 0, "wait")
equal(worker.logs(), b"got input\n", "logs")
thread.join(10)
listener.close()
equal(seen and seen[0]["Actor"]["Attributes"]["exitCode"], "0", "the event")

saved = b"".join(client.images.get("py:1").save(named=True))
client.images.remove("py:1")
equal([t for i in client.images.load(saved) for t in i.tags], ["py:1"], "save and load")

server.stop(timeout=0)
for c in (server, worker):
    c.remove(v=True)
network.remove()
volume.remove()
for name in ("py:1", "py:2"):
    client.images.remove(name)
equal(client.containers.list(all=True), [], "what is left")
print("python3-docker", docker.__version__)
