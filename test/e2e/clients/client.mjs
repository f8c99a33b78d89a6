// dockerode against the engine that DOCKER_HOST names.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { PassThrough } from 'node:stream';

const Docker = createRequire(process.cwd() + '/')('dockerode');
const docker = new Docker({ socketPath: process.env.DOCKER_HOST.slice('unix://'.length) });
const image = process.argv[2];
const text = (stream) => new Promise((resolve, reject) => {
  let all = '';
  stream.on('data', (d) => { all += d; }).on('end', () => resolve(all)).on('error', reject);
});

assert.equal((await docker.ping()).toString(), 'OK');
const out = new PassThrough();
const said = text(out);
const [ended, ran] = await docker.run(image, ['sh', '-c', 'echo one; exit 4'], out, { Tty: true });
out.end();
assert.equal(ended.StatusCode, 4);
assert.equal(await said, 'one\r\n');
await ran.remove();

const network = await docker.createNetwork({ Name: 'node-net' });
const c = await docker.createContainer({ Image: image, name: 'node-web', Cmd: ['httpd', '-f', '-p', '80', '-h', '/www'], ExposedPorts: { '80/tcp': {} },
  HostConfig: { NetworkMode: 'node-net', PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] } } });
await c.start();
const info = await c.inspect();
const port = info.NetworkSettings.Ports['80/tcp'][0].HostPort;
assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), 'hello\n');

const exec = await c.exec({ Cmd: ['sh', '-c', 'cat; echo err >&2'], AttachStdin: true, AttachStdout: true, AttachStderr: true });
const duplex = await exec.start({ hijack: true, stdin: true });
const [stdout, stderr] = [new PassThrough(), new PassThrough()];
const both = Promise.all([text(stdout), text(stderr)]);
docker.modem.demuxStream(duplex, stdout, stderr);
duplex.end('typed');
await new Promise((resolve) => duplex.on('end', resolve));
stdout.end();
stderr.end();
assert.deepEqual(await both, ['typed', 'err\n']);
assert.equal((await exec.inspect()).ExitCode, 0);

const events = await docker.getEvents({ filters: { container: ['node-web'], event: ['die'] } });
const died = new Promise((resolve) => events.once('data', (d) => resolve(JSON.parse(d.toString()))));
await c.stop({ t: 0 });
assert.equal((await died).Actor.Attributes.exitCode, '137');
events.destroy();
assert.equal((await docker.listContainers({ all: true, filters: { name: ['node-web'] } })).length, 1);
await c.remove({ v: true });
await network.remove();

// What a management page polls, all at once.
for (let i = 0; i < 20; i += 1) {
  await Promise.all([docker.listContainers({ all: true, size: true }), docker.listImages({ all: true }), docker.listNetworks(), docker.listVolumes(),
    docker.info(), docker.version(), docker.df(), docker.listPlugins()]);
}
console.log('dockerode', createRequire(process.cwd() + '/')('dockerode/package.json').version);
