/** Packets for tests: servers in pods, clients anywhere, and frames that nobody should send. */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { eventually, type ScratchNode } from './scratch-node.ts';

/** A machine on the node's network, at 192.0.2.2 and fd00:2::2; the node is at .1 and ::1. */
export async function connectOutside(node: ScratchNode): Promise<ScratchNetns> {
  const outside = await createScratchNetns('pw-cni-out');
  await node.netns.ip(`link add eth0 type veth peer name eth0 netns ${outside.name}`);
  for (const [netns, host] of [
    [node.netns, 1],
    [outside, 2],
  ] as const) {
    await netns.ip(`addr add 192.0.2.${host}/24 dev eth0`);
    await netns.ip(`addr add fd00:2::${host}/64 dev eth0 nodad`);
    await netns.ip('link set eth0 up');
  }
  // Not the pods' networks: what comes from there unmasked finds no way back.
  return outside;
}

/** Answers "name address-of-client" to TCP and UDP, on all addresses of both families. */
const serverScript = `
const { createServer } = require('node:net');
const { createSocket } = require('node:dgram');
const [name, ...ports] = process.argv.slice(1);
const plain = (address) => address.replace('::ffff:', '');
let waiting = ports.length * 2;
const ready = () => --waiting || console.log('ready');
for (const port of ports.map(Number)) {
  createServer((s) => s.on('error', () => {}).end(name + ' ' + plain(s.remoteAddress)))
    .listen(port, '::', ready);
  const udp = createSocket('udp6');
  udp.on('message', (_, { address, port: to }) =>
    udp.send(name + ' ' + plain(address), to, address));
  udp.bind(port, '::', ready);
}`;

/** Starts a server; it ends with the namespace. Resolves when it listens. */
export async function serve(netns: ScratchNetns, name: string, ports: number[]): Promise<void> {
  const args = [process.execPath, '-e', serverScript, name, ...ports.map(String)];
  const child = spawn('ip', ['netns', 'exec', netns.name, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  child.stdout.once('data', () => resolve());
  child.once('close', () => reject(new Error(`The server ${name} ended`)));
  await promise;
  child.unref();
  child.stdout.destroy();
}

/**
 * What the server there answers; "" when nothing comes back.
 *
 * @param seconds how long to wait for that; a test that expects silence need not wait long
 */
export async function ask(
  netns: ScratchNetns,
  url: `${'tcp' | 'udp'} ${string} ${number}`,
  seconds = 20,
): Promise<string> {
  const [protocol, host, port] = url.split(' ');
  const script =
    `exec 3<>/dev/${protocol}/${host}/${port} || exit 0; ` +
    (protocol === 'udp' ? 'echo hi >&3; dd bs=200 count=1 status=none <&3' : 'cat <&3');
  const command = ['-c', `timeout ${seconds} bash -c "$0" 2>/dev/null; true`, script];
  return (await netns.exec('bash', command)).stdout.trim();
}

/** All that a pod may leave on its node, in the kernel and on disk: a line each. */
export async function everythingOn(node: ScratchNode): Promise<readonly string[]> {
  const { netns } = node;
  const words = ['-d -j link', '-j addr', '-j route show table all', '-j -6 route show table all'];
  const listed = await Promise.all(words.map((w) => netns.ip(w)));
  const neighbours = JSON.parse(await netns.ip('-j neigh')) as readonly object[];
  const rows = [
    ...listed.flatMap((text) => JSON.parse(text === '' ? '[]' : text) as readonly object[]),
    // The others come and go with traffic.
    ...neighbours.filter((row) => JSON.stringify(row).includes('PERMANENT')),
  ];
  const volatile = /timer|_lft|^topology_change|^link_index$|^ifindex$/;
  const { stdout: nft } = await netns.exec('nft', ['list', 'ruleset']);
  const { stdout: qdiscs } = await netns.exec('tc', ['qdisc']);
  return [
    ...rows
      .map((row) => JSON.stringify(row, (k, v: unknown) => (volatile.test(k) ? undefined : v)))
      .toSorted(),
    ...nft.split('\n'),
    ...qdiscs.split('\n').toSorted(),
    ...[node.dataDir, node.stateDir].flatMap(listFiles),
  ];
}

/** The same, once links have found their carriers and nothing changes by itself any more. */
export async function settledOn(node: ScratchNode): Promise<readonly string[]> {
  let before: readonly string[] = [];
  await eventually(async () => {
    const now = await everythingOn(node);
    const same = isDeepStrictEqual(now, before);
    before = now;
    return same && !now.some((line) => /NO-CARRIER|linkdown|tentative/.test(line));
  });
  return before;
}

/** Files by name, but for those that every call writes anew: they hold a time or a turn. */
function listFiles(directory: string): readonly string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((name) => !/\/(?:\.stamp|last_reserved_ip\.\d+)$/.test(name))
    .filter((name) => !name.includes('/.podwire-resting/'))
    .toSorted();
}

/** The attachment store's files: name and content. */
export function records(node: ScratchNode): ReadonlyMap<string, string> {
  const files = listFiles(join(node.stateDir, 'attachments')).filter((f) => !/\/\.[^/]*$/.test(f));
  return new Map(files.map((file) => [file, readFileSync(file, 'utf8')]));
}
