/** Plugins in a chain, as libcni runs them, and programs in namespaces that answer; for tests. */
import { spawn } from 'node:child_process';
import { goPluginDir, type CniOutcome, type ScratchNode } from '#cmd/podwire-cni/scratch-node.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';

export interface ChainCall {
  readonly id?: string;
  readonly ifName?: string;
  readonly netns?: string;
  readonly network?: string;
  readonly cniVersion?: string;
  readonly plugins: readonly { readonly type: string }[];
  readonly runtimeConfig?: object;
}

/** ADD of every plugin in turn; the last one's answer, or the first error. */
export async function addChain(node: ScratchNode, call: ChainCall): Promise<CniOutcome> {
  let outcome: CniOutcome | undefined;
  for (const plugin of call.plugins) {
    outcome = await callPlugin(node, {
      ...call,
      command: 'ADD',
      plugin,
      prevResult: outcome?.json,
    });
    if (outcome.exitCode !== 0) return outcome;
  }
  if (outcome === undefined) throw new Error('A chain has at least one plugin');
  return outcome;
}

/** DEL of every plugin in reverse; stops at the first that fails, as libcni does. */
export async function delChain(
  node: ScratchNode,
  call: ChainCall & { readonly prevResult?: object | undefined },
): Promise<CniOutcome> {
  let outcome: CniOutcome | undefined;
  for (const plugin of call.plugins.toReversed()) {
    outcome = await callPlugin(node, { ...call, command: 'DEL', plugin });
    if (outcome.exitCode !== 0) return outcome;
  }
  if (outcome === undefined) throw new Error('A chain has at least one plugin');
  return outcome;
}

/** One plugin of a chain. */
export function callPlugin(
  node: ScratchNode,
  call: Omit<ChainCall, 'plugins'> & {
    readonly command: string;
    readonly plugin: { readonly type: string };
    readonly prevResult?: object | undefined;
    /** The reference plugin in place of ours. */
    readonly go?: boolean;
    readonly more?: object;
    readonly args?: string;
    readonly env?: Readonly<Record<string, string>>;
  },
): Promise<CniOutcome> {
  const { command, plugin, network = 'net', cniVersion = '1.1.0', prevResult, go = false } = call;
  return node.cni(plugin.type, {
    command,
    ...(call.id === undefined ? {} : { id: call.id }),
    ...(call.ifName === undefined ? {} : { ifName: call.ifName }),
    ...(call.args === undefined ? {} : { args: call.args }),
    ...(call.env === undefined ? {} : { env: call.env }),
    netns: call.netns ?? '',
    ...(go ? { program: `${goPluginDir}/${plugin.type}` } : {}),
    config: {
      cniVersion,
      name: network,
      ...plugin,
      ...(prevResult === undefined ? {} : { prevResult }),
      ...(call.runtimeConfig === undefined ? {} : { runtimeConfig: call.runtimeConfig }),
      ...call.more,
    },
  });
}

/** What iptables-save and ip6tables-save print, without times and counters. */
export async function savedRules(netns: ScratchNetns, table: 'nat' | 'filter'): Promise<string> {
  const texts = ['iptables-save', 'ip6tables-save'].map(async (program) => {
    const { stdout } = await netns.exec(program, ['-t', table]);
    return stdout.replaceAll(/^#.*\n?/gm, '').replaceAll(/\[\d+:\d+\]/g, '');
  });
  return (await Promise.all(texts)).join('\n');
}

/** Everything nftables has, iptables-nft's tables too, without counters and handles. */
export async function nftRules(netns: ScratchNetns): Promise<string> {
  const { stdout } = await netns.exec('nft', ['-s', 'list', 'ruleset']);
  return stdout;
}

const server = `
const net = require('node:net'), dgram = require('node:dgram');
const [name, ...ports] = process.argv.slice(1);
let open = ports.length * 2;
const ready = () => { if (--open === 0) console.log('ready'); };
for (const port of ports.map(Number)) {
  net.createServer((s) => { s.on('error', () => {}); s.end(name + ' ' + s.remoteAddress); }).listen(port, '::', ready);
  const u = dgram.createSocket({ type: 'udp6' });
  u.on('message', (_, from) => u.send(name + ' ' + from.address, from.port, from.address));
  u.bind(port, '::', ready);
}`;

/**
 * Starts a program that answers on TCP and UDP ports, of both families, with its name and the
 * source address it sees. It ends with the namespace.
 */
export async function startServer(
  netns: ScratchNetns,
  name: string,
  ports: readonly number[],
): Promise<void> {
  const child = spawn('nsenter', [
    `--net=${netns.path}`,
    process.execPath,
    '-e',
    server,
    name,
    ...ports.map(String),
  ]);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  child.stdout.once('data', () => resolve());
  child.stderr.once('data', (text: Buffer) => reject(new Error(text.toString())));
  child.once('exit', () => reject(new Error('The server ended')));
  await promise;
}

const client = `
const net = require('node:net'), dgram = require('node:dgram');
const ask = ([protocol, host, port]) => new Promise((resolve) => {
  const timer = setTimeout(() => resolve('no answer'), patienceMs);
  const done = (text) => { clearTimeout(timer); resolve(text.replace('::ffff:', '')); };
  if (protocol === 'tcp') {
    let text = '';
    const s = net.connect({ host, port });
    s.on('data', (d) => (text += d)).on('end', () => done(text)).on('error', (e) => done(e.code));
  } else {
    const u = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4');
    u.on('message', (d) => { u.close(); done(d.toString()); }).on('error', (e) => done(e.code));
    u.connect(port, host, (e) => (e ? done(e.code) : u.send('?')));
  }
});
const patienceMs = Number(process.argv[2]);
Promise.all(JSON.parse(process.argv[1]).map(ask)).then((answers) => {
  console.log(JSON.stringify(answers));
  process.exit();
});`;

/** For who expects none. */
export const briefly = 1_500;

/**
 * What `startServer` answers to each question, "no answer", or an error's code.
 *
 * @param patienceMs for what comes, if late on a machine under load
 */
export async function ask(
  netns: ScratchNetns,
  questions: readonly (readonly ['tcp' | 'udp', string, number])[],
  patienceMs = 20_000,
): Promise<string[]> {
  const args = ['-e', client, JSON.stringify(questions), `${patienceMs}`];
  const { stdout } = await netns.exec(process.execPath, args);
  return JSON.parse(stdout) as string[];
}

/** Joins a namespace to the node by a cable of its own: the node is .1, it is .2. */
export async function connectOutside(node: ScratchNetns, outside: ScratchNetns): Promise<void> {
  await node.ip(`link add up0 type veth peer name up0 netns ${outside.name}`);
  for (const [netns, host] of [
    [node, 1],
    [outside, 2],
  ] as const) {
    await netns.ip(`addr add 192.0.2.${host}/24 dev up0`);
    await netns.ip(`addr add fd00:9::${host}/64 dev up0 nodad`);
    await netns.ip('link set up0 up');
  }
}
