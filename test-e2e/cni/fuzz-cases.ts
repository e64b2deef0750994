/** Calls no runtime would make: valid ones, changed at random, and plain noise. */
import { pluginNames, type PluginName } from '#plugins/plugin-names.ts';
import { fullConfig, fuzzDirectory, type Json } from './fuzz-config.ts';
import type { Random } from './random.ts';

export interface FuzzCase {
  /** The name the executable is called by. */
  readonly type: PluginName;
  readonly environment: Readonly<Record<string, string>>;
  readonly stdin: Buffer;
}

export function fuzzCase(random: Random): FuzzCase {
  const type = random.pick(pluginNames);
  const config = fullConfig(type);
  // A call that is right in all but one thing gets the furthest.
  for (const key of Object.keys(config)) {
    if (!needed.has(key) && random.chance(0.4)) delete config[key];
  }
  for (let i = random.below(4); i > 0; i--) mutate(config, random);
  return { type, environment: fuzzEnvironment(random), stdin: fuzzText(config, random) };
}

const needed = new Set(['cniVersion', 'name', 'type', 'ipam']);

const commands = ['ADD', 'ADD', 'ADD', 'DEL', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'] as const;

function fuzzEnvironment(random: Random): Record<string, string> {
  const env: Record<string, string> = {
    CNI_COMMAND: random.pick(commands),
    CNI_CONTAINERID: `pod-${random.below(500)}`,
    CNI_NETNS: `/run/netns/pod-${random.below(3)}`,
    CNI_IFNAME: 'eth0',
    CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1',
    CNI_PATH: '/usr/lib/cni',
  };
  for (let i = random.below(3); i > 0 && random.chance(0.5); i--) {
    const name = random.pick([...Object.keys(env), 'CNI_NETNS_OVERRIDE']);
    if (random.chance(0.3)) delete env[name];
    else env[name] = random.pick(environmentNoise);
  }
  return env;
}

const environmentNoise = [
  '',
  ' ',
  '.',
  '..',
  '/',
  'add',
  'ADD ',
  'UPDATE',
  'lo',
  'eth0:1',
  'a b',
  'interface-name-too-long',
  '1',
  'true',
  'A=1;B',
  'IP=10.1.2.3;MAC=02:00:00:00:00:01',
  'IgnoreUnknown=maybe',
  ';;=;',
  '/proc/self/ns/net',
  '/proc/self/ns/mnt',
  '/run/netns/none',
  '/run/fuzz/node.json',
  '/run/fuzz',
  '../../../../etc/passwd',
  '::::',
  'é\u2028\u{1f600}',
  'x'.repeat(5000),
] as const;

/** Changes one place of the document. */
function mutate(config: Json, random: Random): void {
  const place = randomPlace(config, random);
  if (place === undefined) return;
  const { parent, key } = place;
  switch (random.below(4)) {
    case 0:
      delete parent[key];
      return;
    case 1:
      parent[`${key.charAt(0).toUpperCase()}${key.slice(1)}`] = parent[key];
      return;
    case 2:
      parent[random.pick(keyNoise)] = noise(random);
      return;
    default:
      parent[key] = noise(random);
  }
}

function randomPlace(
  config: Json,
  random: Random,
): { readonly parent: Json; readonly key: string } | undefined {
  let parent = config;
  for (;;) {
    const keys = Object.keys(parent);
    if (keys.length === 0) return undefined;
    const key = random.pick(keys);
    const value = parent[key];
    // An array is as good: its keys are its indices.
    if (typeof value !== 'object' || value === null || random.chance(0.3)) return { parent, key };
    parent = value as Json;
  }
}

const keyNoise = [
  '',
  '__proto__',
  'constructor',
  'toString',
  '0',
  'ipam',
  'é',
  'x'.repeat(300),
] as const;

/** Its own copy: the next change may be to it. */
function noise(random: Random): unknown {
  return structuredClone(random.pick<unknown>(valueNoise));
}

const valueNoise = [
  null,
  true,
  false,
  0,
  1,
  -1,
  1.5,
  4095,
  65_536,
  2 ** 31,
  2 ** 53,
  1e308,
  '',
  ' ',
  '0',
  '..',
  '/',
  '/dev/null',
  '/proc/self/mem',
  `${fuzzDirectory}/garbage.json`,
  `${fuzzDirectory}/missing/deep`,
  '\u0000',
  '\ud800',
  'é',
  '1.0.0',
  '0.2.0',
  '0.4.0',
  '9.9.9',
  'cni0',
  'lo',
  'podwire',
  'bridge',
  'static',
  'host-local',
  'dhcp',
  '10.9.0.0/24',
  '10.9.0.1/31',
  '0.0.0.0/0',
  '::/0',
  'fd00::/129',
  '10.0.0.300',
  '::ffff:10.0.0.1',
  'ff:ff:ff:ff:ff:ff',
  'net.ipv4.ip_forward',
  'kernel.panic',
  'a\nb',
  '"; drop',
  'x'.repeat(300),
  'x'.repeat(70_000),
  [],
  {},
  [[]],
  [{}],
  [null],
  ['', 0, null],
  [[{ subnet: '10.9.0.0/30' }], [{ subnet: '10.9.0.0/24' }]],
  { type: 'static', addresses: [{ address: '10.9.0.9/24' }] },
  { toString: 1 },
] as const;

/** The document as text, with what no JSON printer would do to it. */
function fuzzText(config: Json, random: Random): Buffer {
  const text = Buffer.from(JSON.stringify(config));
  switch (random.below(12)) {
    case 0:
      return text.subarray(0, random.below(text.length));
    case 1:
      for (let i = 1 + random.below(8); i > 0; i--) flipByte(text, random);
      return text;
    case 2:
      return random.pick(textNoise);
    case 3:
      return Buffer.concat([text, random.pick(textNoise)]);
    case 4:
      return random.chance(0.5) ? text : randomBytes(random);
    default:
      return text;
  }
}

/** Not in the name of our directory: a path that is right but for a letter is no mistake of a plugin. */
function flipByte(text: Buffer, random: Random): void {
  const at = random.below(text.length);
  const near = text.subarray(Math.max(0, at - fuzzDirectory.length), at + fuzzDirectory.length);
  if (!near.includes(fuzzDirectory)) text[at] = random.below(256);
}

const textNoise = [
  '',
  ' ',
  'null',
  '[]',
  '{}',
  '0',
  '"name"',
  '{"name":"net"}',
  '{"name":"net","cniVersion":"1.1.0","__proto__":{"ipam":{"type":"host-local"}}}',
  '{"name":"net","name":"a b","cniVersion":"1.1.0"}',
  '\ufeff{"name":"net"}',
  '\0\0\0\0',
  '[',
  '{"ipam":'.repeat(2_000),
  '['.repeat(200_000),
].map((text) => Buffer.from(text));

function randomBytes(random: Random): Buffer {
  return Buffer.from(Array.from({ length: random.below(300) }, () => random.below(256)));
}
