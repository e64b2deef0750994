/** The node daemon's configuration file: one YAML mapping, every key optional. */
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parseBindAddress, type BindAddress } from '#pkg/health/bind-address.ts';
import { parseKey } from '#pkg/host-network/wireguard-key.ts';
import { tryParseAddress, type Family } from '#pkg/ip/address.ts';
import { formatPrefix, networkOf, tryParsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { backendTypes } from '#pkg/overlay/backend.ts';
import { wireguardModes } from '#pkg/overlay/wireguard.ts';
import {
  describeWrong,
  isMapping,
  mergedKeys,
  type Layer,
  type WrongSetting,
} from './config-layers.ts';
import { etcdSchema, ipAddress } from './etcd-config.ts';
import { nearestName } from './nearest-name.ts';
import { backendKeys, backendNames, backendOf, type NetConf } from './net-conf.ts';
import { yamlReason } from './yaml-reason.ts';

const podRange = z.string().transform((text, context): Prefix => {
  const prefix = tryParsePrefix(text);
  if (prefix !== undefined) return networkOf(prefix);
  context.addIssue({ code: 'custom', message: 'expected address/length as 10.0.0.0/8' });
  return z.NEVER;
});

const absolutePath = z.string().regex(/^\//, 'expected an absolute path');

/** "127.0.0.1:9964", "[::1]:9964"; an empty text, or port 0, turns the server off. */
const bindAddress = z.string().transform((text, context): BindAddress | undefined => {
  if (text === '') return undefined;
  try {
    return parseBindAddress('it', text, defaultHealthPort);
  } catch {
    context.addIssue({ code: 'custom', message: 'expected IP:PORT, or "" for none' });
    return z.NEVER;
  }
});

const defaultHealthPort = 9964;

/** One text or a list of them, as a list. */
function oneOrList(what: string, isRight: (text: string) => boolean) {
  const text = z.string().refine(isRight, `expected ${what}`);
  return z
    .union([text, z.array(text)], { error: `expected one or a list: ${what}` })
    .default([])
    .transform((wish) => [wish].flat());
}

const linkWishes = oneOrList(
  'the name of a link or an IP address',
  (text) => /^[^\s/]{1,15}$/.test(text) || tryParseAddress(text) !== undefined,
);

const regularExpressions = oneOrList('a regular expression', (text) => {
  try {
    void new RegExp(text);
    return true;
  } catch {
    return false;
  }
});
const port = z.int().min(1).max(65535);

/** A secret: not in messages. */
const presharedKey = z.string().transform((text, context): Uint8Array => {
  const key = parseKey(text);
  if (key !== undefined) return key;
  context.addIssue({ code: 'custom', message: 'expected 32 bytes in base64' });
  return z.NEVER;
});

const schema = z.strictObject({
  /** Nodes and their subnets are in etcd, as flannel keeps them; none = in the Kubernetes API. */
  etcd: etcdSchema.optional(),
  /** flannel's net-conf.json: its keys stand for ours, which win where both are given. */
  netConf: absolutePath.optional(),
  /** The networks all pods are in: flannel's Network and IPv6Network. Kept from masquerade. */
  clusterCIDRs: z.array(podRange).default([]),
  /** Families that pods get, where their Nodes have podCIDRs of them; flannel's EnableIPv4 and -6. */
  ipFamilies: z
    .array(z.enum(['IPv4', 'IPv6']).transform((name): Family => (name === 'IPv4' ? 'ip' : 'ip6')))
    .min(1)
    .prefault(['IPv4', 'IPv6']),
  /** File for who reads flannel's, as Docker's start script does: /run/flannel/subnet.env. */
  subnetFile: absolutePath.optional(),
  /** How packets travel between nodes. */
  backend: z.enum(backendTypes).default('vxlan'),
  /** VXLAN network identifier. */
  vni: z.int().min(1).max(16_777_215).default(1),
  /** UDP port of the backends vxlan and udp; none = 8472 and 8285. */
  port: port.optional(),
  /** VXLAN packets carry their mark (draft-smith-vxlan-group-policy); on all nodes or none. */
  gbp: z.boolean().default(false),
  /** Plain routes instead of VXLAN or IP in IP to nodes on the same L2 network. */
  directRouting: z.boolean().default(true),
  /**
   * The link between nodes by name or address, the first that is there; none = the one that has the
   * Node's InternalIP.
   */
  iface: linkWishes,
  /** The same by regular expressions for names or addresses. */
  ifaceRegex: regularExpressions,
  /** The same by the way to this address. */
  ifaceCanReach: ipAddress.optional(),
  /** What the backend wireguard takes; the same on all nodes. */
  wireguard: z
    .strictObject({
      /** A device for each family, or one for both, over these addresses. */
      mode: z.enum(wireguardModes).default('separate'),
      listenPort: port.default(51_820),
      /** Of the device for IPv6 in mode separate. */
      listenPortV6: port.default(51_821),
      /** A second secret, shared by all nodes: base64, as `wg genpsk` makes it. */
      presharedKey: presharedKey.optional(),
      /** Keeps the ways through firewalls and address translators open; 0 = sends nothing unasked. */
      persistentKeepaliveSeconds: z.int().min(0).max(65_535).default(0),
    })
    .prefault({}),
  /** What the backend bgp takes. */
  bgp: z
    .strictObject({
      /** Who speaks BGP for this node; each node may have its own. */
      daemon: z.enum(['bird', 'frr']).default('bird'),
      /** Of all nodes and reflectors. */
      asNumber: z.int().min(1).max(4_294_967_294).default(64_512),
      /** Addresses of route reflectors, nodes or not; none = every node speaks with every other. */
      reflectors: z.array(ipAddress).default([]),
      /** The file that bird.conf includes. */
      configFile: absolutePath.default('/etc/bird/podwire.conf'),
      /** Where BIRD takes commands. */
      controlSocket: absolutePath.default('/run/bird/bird.ctl'),
      /** Where FRR's bgpd takes commands. */
      vtySocket: absolutePath.default('/run/frr/bgpd.vty'),
    })
    .prefault({}),
  /** Upper limit for the MTU of pods; none = what fits the link. */
  mtu: z.int().min(68).max(65535).optional(),
  /** Give packets that leave the cluster an address of the node. */
  masquerade: z.boolean().default(true),
  /** Masquerade with random source ports: without, two connections can race for one. */
  masqueradeRandomFully: z.boolean().default(true),
  /** Let pods' packets pass where the host drops what it forwards, as with Docker. Needs iptables. */
  forwardAccept: z.boolean().default(true),
  /** Destinations besides pods and nodes that see pods' own addresses. */
  nonMasqueradeCIDRs: z.array(podRange).default([]),
  /** Start of the keys of Node annotations; flannel's lets both kinds of node form one network. */
  annotationPrefix: z
    .string()
    .regex(/^[a-z0-9.-]+(?:\/[A-Za-z0-9._-]*)?$/, 'expected a DNS name')
    // flannel's own rule: a name alone is followed by a slash, what comes after one by a dash.
    .transform((text) => (/[/-]$/.test(text) ? text : `${text}${text.includes('/') ? '-' : '/'}`))
    .default('podwire.dev/'),
  /** Where node.json goes. */
  runDir: absolutePath.default('/run/podwire'),
  /** Where the container runtime looks for network configurations. */
  cniConfDir: absolutePath.default('/etc/cni/net.d'),
  /** Where the plugin keeps the addresses it gave out. */
  cniDataDir: absolutePath.default('/var/lib/cni/networks'),
  /** Where the plugin remembers what it did for each pod. */
  stateDir: absolutePath.default('/var/lib/podwire'),
  /** Write the conflist at all. The keys from here to `bandwidth` say what is in it. */
  conflist: z.boolean().default(true),
  /** How pods meet the host: as ports of a bridge, or each on a link of its own, with a route. */
  mode: z.enum(['bridge', 'routed']).default('bridge'),
  /** Drop what a pod sends under a MAC or IP address that is not its own. */
  antiSpoofing: z.boolean().default(true),
  /** Pods may have ports of the node. */
  hostPorts: z.boolean().default(true),
  /** Pods may have limits of their traffic, by the annotations kubernetes.io/ingress-bandwidth … */
  bandwidth: z.boolean().default(true),
  /** A pod's address goes to no other for as long after it, unless none else is free. */
  addressCooldownSeconds: z.int().min(0).max(86_400).default(60),
  /** Where the container runtime looks for plugins: they are installed there; none = not by us. */
  cniBinDir: absolutePath.optional(),
  /** Also where the reference plugins are: bridge, portmap and so on. They are kept aside. */
  replaceReferencePlugins: z.boolean().default(false),
  /** Where /healthz, /livez and /metrics answer. */
  healthBindAddress: bindAddress.prefault(`127.0.0.1:${defaultHealthPort}`),
  logLevel: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
});

export type NodeConfig = Readonly<z.output<typeof schema>>;

/**
 * The configuration in this YAML text; an empty text is all defaults.
 *
 * @param netConf flannel's, whose settings stand where the text has none; those of its Backend, unless
 *   the text names another backend
 * @param flags keys and values that win over both; a flag's name is that of the key, with dashes
 * @throws {AgentError} InvalidConfig, naming every wrong key where it was given and, for unknown
 *   ones, the nearest
 */
export function parseNodeConfig(
  text: string,
  source: string,
  netConf?: { readonly content: NetConf; readonly source: string },
  flags: Readonly<Record<string, unknown>> = {},
): NodeConfig {
  const file = parseText(text, source);
  const own = isMapping(file) ? file : {};
  const layers: readonly Layer[] = [
    ...(netConf === undefined ? [] : [netConfLayer(netConf, own['backend'])]),
    { source, keys: own },
    { source: 'the command line', keys: flags, nameOf: flagOf },
  ];
  const data = isMapping(file) ? mergedKeys(...layers.map(({ keys }) => keys)) : file;
  const result = schema.safeParse(data);
  if (result.success) return withSubnetFileChecked(result.data, source);
  const wrong = result.error.issues.flatMap(describeIssue);
  throw new AgentError('InvalidConfig', describeWrong(layers, wrong));
}

function parseText(text: string, source: string): unknown {
  try {
    return parseYaml(text) ?? {};
  } catch (error) {
    const reason = yamlReason(error);
    throw new AgentError('InvalidConfig', `Cannot read ${source}: expected YAML: ${reason}`);
  }
}

/** @param backend the file's own: settings that are for another are not for it */
function netConfLayer(
  { content, source }: { readonly content: NetConf; readonly source: string },
  backend: unknown,
): Layer {
  const names = backendNames(content);
  const isMeant = backend === undefined || backend === backendOf(content);
  return {
    source,
    keys: { ...networkKeys(content), ...(isMeant ? backendKeys(content, source) : {}) },
    nameOf: (path) => names.get(path) ?? path,
  };
}

/** "annotationPrefix" is given by --annotation-prefix. */
function flagOf(path: string): string {
  return `--${path.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** flannel takes no notice of the network of a family that is not enabled. */
function networkKeys(netConf: NetConf): Readonly<Record<string, unknown>> {
  const { EnableIPv4, EnableIPv6, Network, IPv6Network } = netConf;
  const networks = [EnableIPv4 ? Network : undefined, EnableIPv6 ? IPv6Network : undefined];
  return {
    clusterCIDRs: networks.flatMap((network) => (network ? [formatPrefix(network)] : [])),
    ipFamilies: [EnableIPv4 ? ['IPv4'] : [], EnableIPv6 ? ['IPv6'] : []].flat(),
  };
}

/** Whoever reads flannel's file needs the network in it, which the API server does not tell. */
function withSubnetFileChecked(config: NodeConfig, source: string): NodeConfig {
  const { subnetFile, clusterCIDRs, etcd, netConf } = config;
  const needsNetwork = subnetFile !== undefined && etcd === undefined && netConf === undefined;
  if (!needsNetwork || clusterCIDRs.length > 0) return config;
  const reason = 'subnetFile: needs clusterCIDRs, or netConf with Network';
  throw new AgentError('InvalidConfig', `Cannot use ${source}: ${reason}`);
}

function describeIssue(issue: z.core.$ZodIssue): readonly WrongSetting[] {
  const path = issue.path.map(String);
  if (issue.code !== 'unrecognized_keys') return [{ path: path.join('.'), reason: issue.message }];
  return issue.keys.map((key) => {
    const nearest = nearestName(key, keysAt(issue.path));
    const hint = nearest === undefined ? '' : `, did you mean "${nearest}"?`;
    const unknown = [...path, key].join('.');
    return { path: unknown, reason: `unknown key "${unknown}"${hint}`, isNamed: true };
  });
}

/** The keys of the mapping at this path. */
function keysAt([section]: readonly PropertyKey[]): readonly string[] {
  if (section === undefined) return Object.keys(schema.shape);
  return section === 'wireguard' || section === 'bgp' || section === 'etcd'
    ? Object.keys(schema.shape[section].unwrap().shape)
    : [];
}
