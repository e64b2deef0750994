/**
 * flannel's network configuration, `net-conf.json` (flannel Documentation/configuration.md): as a
 * file beside our own configuration, or in etcd. Its backend becomes keys of ours. What asks flannel
 * for something that we do not do is refused by name, so that nothing is silently done otherwise;
 * keys that are none for flannel do nothing there, and nothing here.
 */
import { z } from 'zod';
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';
import { networkOf, tryParsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { tryParseAddress, type Address } from '#pkg/ip/address.ts';
import { isMapping, mergedKeys } from './config-layers.ts';

function prefixOf(family: 'ip' | 'ip6') {
  return z.string().transform((text, context): Prefix => {
    const prefix = tryParsePrefix(text);
    if (prefix?.address.family === family) return networkOf(prefix);
    const example = family === 'ip' ? '10.244.0.0/16' : 'fd00:10:244::/48';
    context.addIssue({ code: 'custom', message: `expected address/length as ${example}` });
    return z.NEVER;
  });
}

/** Zero is none for flannel, as is a length of 0. */
function addressOf(family: 'ip' | 'ip6') {
  return z.string().transform((text, context): Address | undefined => {
    const address = tryParseAddress(text);
    if (address?.family === family) return address.value === 0n ? undefined : address;
    const expected = family === 'ip' ? 'an IPv4 address' : 'an IPv6 address';
    context.addIssue({ code: 'custom', message: `expected ${expected}` });
    return z.NEVER;
  });
}

const subnetLength = z.int().transform((length) => (length === 0 ? undefined : length));

const schema = z.object({
  Network: prefixOf('ip').optional(),
  IPv6Network: prefixOf('ip6').optional(),
  EnableIPv4: z.boolean().default(true),
  EnableIPv6: z.boolean().default(false),
  /** flannel's choice of program for rules; ours is made by what the node has. */
  EnableNFTables: z.boolean().optional(),
  SubnetLen: subnetLength.optional(),
  SubnetMin: addressOf('ip').optional(),
  SubnetMax: addressOf('ip').optional(),
  IPv6SubnetLen: subnetLength.optional(),
  IPv6SubnetMin: addressOf('ip6').optional(),
  IPv6SubnetMax: addressOf('ip6').optional(),
  Backend: z
    .record(z.string(), z.unknown(), { error: 'expected an object with Type' })
    .transform(withBackendNames)
    .pipe(z.looseObject({ Type: z.string().toLowerCase() }))
    .optional(),
});

/** As written, checked for form. Which subnets there are is `pkg/pod-network/subnet-plan.ts`. */
export type NetConf = Readonly<z.output<typeof schema>> & {
  /** Keys that are none. */
  readonly unknownKeys: readonly string[];
};

/**
 * Reads the JSON text.
 *
 * @param source names it in errors
 * @throws {AgentError} InvalidConfig, naming every wrong key
 */
export function parseNetConf(text: string, source: string): NetConf {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (cause) {
    const said = messageOf(cause);
    // Those words quote the file, where a preshared key is.
    const reason = said.endsWith('is not valid JSON') ? '' : `: ${said}`;
    throw new AgentError('InvalidConfig', `Cannot read ${source}: expected JSON${reason}`);
  }
  const names = Object.keys(schema.shape);
  const result = schema.safeParse(isMapping(data) ? withNames(data, names) : data);
  if (!result.success) throw invalid(source, result.error.issues.map(describeIssue));
  if (!result.data.EnableIPv4 && !result.data.EnableIPv6) {
    throw invalid(source, ['EnableIPv4 and EnableIPv6: expected one of them to be true']);
  }
  const keys = isMapping(data) ? Object.keys(data) : [];
  return { ...result.data, unknownKeys: keys.filter((key) => nameOf(key, names) === undefined) };
}

function describeIssue(issue: z.core.$ZodIssue): string {
  const at = issue.path.map(String).join('.');
  return at === '' ? issue.message : `${at}: ${issue.message}`;
}

function invalid(source: string, reasons: readonly string[]): AgentError {
  return new AgentError('InvalidConfig', `Cannot use ${source}: ${reasons.join('; ')}`);
}

/** Go takes a key in any case, its own spelling first (encoding/json, Unmarshal). */
function nameOf(key: string, names: readonly string[]): string | undefined {
  const lower = key.toLowerCase();
  return names.find((name) => name === key) ?? names.find((name) => name.toLowerCase() === lower);
}

/** The mapping with known keys as we spell them. */
function withNames(
  data: Readonly<Record<string, unknown>>,
  names: readonly string[],
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(data).map(([key, value]) => [nameOf(key, names) ?? key, value]),
  );
}

function withBackendNames(
  block: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  const typed = withNames(block, ['Type']);
  const type = typeof typed['Type'] === 'string' ? typed['Type'].toLowerCase() : '';
  return withNames(typed, Object.keys(mappings[type] ?? {}));
}

/** Keys that neither flannel nor we take notice of, for the log: most are slips of somebody's pen. */
export function ignoredKeys(netConf: NetConf): readonly string[] {
  const { Type: type = '', ...block } = netConf.Backend ?? {};
  const known = mappings[type] ?? {};
  const ofBackend = Object.keys(block).filter((key) => known[key] === undefined);
  return [...netConf.unknownKeys, ...ofBackend.map((key) => `Backend.${key}`)];
}

/** What a key of a backend becomes: keys of our configuration, or a sentence why it cannot. */
type Mapping = (value: unknown) => Readonly<Record<string, unknown>> | string;

/** Bytes that flannel takes from `MTU`, which is the link's, for what pods may send. */
const overheads: Readonly<Record<string, number>> = {
  vxlan: 50,
  'host-gw': 0,
  ipip: 20,
  udp: 28,
  wireguard: 80,
};

const as =
  (key: string): Mapping =>
  (value) => ({ [key]: value });

const inWireguard =
  (key: string): Mapping =>
  (value) => ({ wireguard: { [key]: value } });

/** A key that asks, when true, for what we do not do. */
const onlyFalse =
  (why: string): Mapping =>
  (value) =>
    value === false ? {} : why;

const ignored: Mapping = () => ({});

function mtuMapping(type: string): Mapping {
  return (value) =>
    typeof value === 'number' ? { mtu: value - (overheads[type] ?? 0) } : 'expected a number';
}

const mappings: Readonly<Record<string, Readonly<Record<string, Mapping>>>> = {
  vxlan: {
    VNI: as('vni'),
    // 0 is the kernel's own port, which on Linux is 8472.
    Port: (value) => (value === 0 ? {} : { port: value }),
    DirectRouting: as('directRouting'),
    MTU: mtuMapping('vxlan'),
    GBP: as('gbp'),
    Learning: onlyFalse('this agent fills the forwarding table itself, and a pod could forge it'),
    // Of nodes with Windows only.
    MacPrefix: ignored,
  },
  'host-gw': { MTU: mtuMapping('host-gw') },
  ipip: { DirectRouting: as('directRouting'), MTU: mtuMapping('ipip') },
  udp: { Port: (value) => (value === 0 ? {} : { port: value }) },
  wireguard: {
    Mode: inWireguard('mode'),
    ListenPort: inWireguard('listenPort'),
    ListenPortV6: inWireguard('listenPortV6'),
    PersistentKeepaliveInterval: inWireguard('persistentKeepaliveSeconds'),
    // flannel has none for an empty text.
    PSK: (value) => (value === '' ? {} : { wireguard: { presharedKey: value } }),
    MTU: mtuMapping('wireguard'),
  },
  // Somebody else carries the packets.
  alloc: {},
  none: {},
  bgp: {},
};

const ofClouds =
  "this agent does not write a cloud's route table; alloc leaves the routes to the cloud";

/** Why we have nothing for a backend of flannel's. */
const otherBackends: Readonly<Record<string, string>> = {
  ipsec: 'this agent has no IPsec; wireguard encrypts as well',
  extension:
    'this agent runs no commands that a configuration names; alloc leaves the routes to others',
  'ali-vpc': ofClouds,
  'aws-vpc': ofClouds,
  gce: ofClouds,
  'tencent-vpc': ofClouds,
};

/** The backend of ours that the Backend block asks for; undefined where we have none. */
export function backendOf({ Backend }: NetConf): string | undefined {
  const { Type: type } = Backend ?? { Type: 'udp' };
  if (mappings[type] === undefined) return undefined;
  return type === 'alloc' ? 'none' : type;
}

/**
 * Keys of our configuration that the Backend block stands for, flannel's defaults included, to be
 * checked as if they were written there.
 *
 * @throws {AgentError} InvalidConfig, naming each setting that has no counterpart
 */
export function backendKeys(netConf: NetConf, source: string): Readonly<Record<string, unknown>> {
  const { Type: type, ...block } = netConf.Backend ?? { Type: 'udp' };
  const known = mappings[type];
  if (known === undefined) {
    const why = otherBackends[type] ?? `expected one of ${Object.keys(mappings).join(', ')}`;
    throw invalid(source, [`Backend.Type ${type}: ${why}`]);
  }
  const problems: string[] = [];
  const settings = Object.entries(block).flatMap(([key, value]) => {
    const mapped = known[key]?.(value) ?? {};
    if (typeof mapped !== 'string') return [mapped];
    problems.push(`Backend.${key}: ${mapped}`);
    return [];
  });
  if (problems.length > 0) throw invalid(source, problems);
  return mergedKeys(
    { backend: backendOf(netConf) },
    // flannel goes around its tunnel only where it is told to.
    known['DirectRouting'] === undefined ? {} : { directRouting: false },
    ...settings,
  );
}

/** What flannel's file calls the settings that stand for ours: "vni" is "Backend.VNI". */
export function backendNames({ Backend }: NetConf): ReadonlyMap<string, string> {
  const { Type: type = 'udp', ...block } = Backend ?? {};
  return new Map(
    Object.entries(block).flatMap(([name, value]) => {
      const mapped = mappings[type]?.[name]?.(value) ?? {};
      const ours = typeof mapped === 'string' ? [] : Object.entries(mapped);
      return ours.map(([key, inner]): [string, string] => {
        const path = isMapping(inner) ? [key, ...Object.keys(inner)].join('.') : key;
        return [path, `Backend.${name}`];
      });
    }),
  );
}
