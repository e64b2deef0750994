/**
 * A node's subnet as flannel keeps it in etcd (flannel pkg/subnet/etcd/registry.go): the key is the
 * subnet, the value what others must know of the node. Turned into the record that the API server
 * would give, so that nothing else knows where nodes come from.
 */
import { formatAddress, tryParseAddress, type Address } from '#pkg/ip/address.ts';
import {
  formatPrefix,
  networkOf,
  samePrefix,
  tryParsePrefix,
  type Prefix,
} from '#pkg/ip/prefix.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';

export interface LeasedSubnets {
  readonly ip: Prefix;
  readonly ip6: Prefix | undefined;
}

/** The value's JSON, as flannel spells it. Keys of others stay. */
export interface LeaseValue {
  readonly PublicIP?: string | undefined;
  readonly PublicIPv6?: string | null | undefined;
  readonly BackendType?: string | undefined;
  readonly BackendData?: unknown;
  readonly BackendV6Data?: unknown;
}

/** `10.3.1.0-24`, or `10.3.1.0-24&fd00:1::-64`: the last part of the key. */
export function formatLeaseKey({ ip, ip6 }: LeasedSubnets): string {
  const part = ({ address, length }: Prefix): string => `${formatAddress(address)}-${length}`;
  return ip6 === undefined ? part(ip) : `${part(ip)}&${part(ip6)}`;
}

/** Whether both families' subnets are the same. */
export function sameSubnets(a: LeasedSubnets, b: LeasedSubnets): boolean {
  const sameIp6 =
    a.ip6 === undefined || b.ip6 === undefined ? a.ip6 === b.ip6 : samePrefix(a.ip6, b.ip6);
  return samePrefix(a.ip, b.ip) && sameIp6;
}

/** Undefined for what is no such key, host bits included. */
export function parseLeaseKey(text: string): LeasedSubnets | undefined {
  const [first = '', second, ...rest] = text.split('&');
  const ip = subnetOf(first);
  const ip6 = second === undefined ? undefined : subnetOf(second);
  if (rest.length > 0 || ip?.address.family !== 'ip') return undefined;
  if (second !== undefined && ip6?.address.family !== 'ip6') return undefined;
  return { ip, ip6 };
}

function subnetOf(text: string): Prefix | undefined {
  const prefix = tryParsePrefix(text.replace(/-(\d+)$/, '/$1'));
  return prefix !== undefined && samePrefix(prefix, networkOf(prefix)) ? prefix : undefined;
}

/** Undefined for what is no JSON object. */
export function parseLeaseValue(text: string): LeaseValue | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Annotations without prefix and the keys of the value that say the same. */
const keys = {
  'public-ip': 'PublicIP',
  'public-ipv6': 'PublicIPv6',
  'backend-type': 'BackendType',
  'backend-data': 'BackendData',
  'backend-v6-data': 'BackendV6Data',
} as const satisfies Readonly<Record<string, keyof LeaseValue>>;

const jsonKeys: ReadonlySet<string> = new Set(['BackendData', 'BackendV6Data']);

/** The annotations that would say the same of a Node. */
function leaseAnnotations(value: LeaseValue, prefix: string): Record<string, string> {
  const annotations: Record<string, string> = {};
  for (const [name, key] of Object.entries(keys)) {
    const said: unknown = value[key];
    if (said === undefined || said === null || said === '') continue;
    annotations[prefix + name] = typeof said === 'string' ? said : JSON.stringify(said);
  }
  return annotations;
}

/** The value after a change of annotations, whose keys carry the prefix; `null` removes one. */
export function changeLeaseValue(
  value: LeaseValue,
  patch: Readonly<Record<string, string | null>>,
  prefix: string,
): LeaseValue {
  const next: Record<string, unknown> = { ...value };
  for (const [annotation, said] of Object.entries(patch)) {
    const key = annotation.startsWith(prefix)
      ? (keys as Readonly<Record<string, string>>)[annotation.slice(prefix.length)]
      : undefined;
    if (key === undefined) continue;
    if (said === null) delete next[key];
    else next[key] = jsonKeys.has(key) ? (JSON.parse(said) as unknown) : said;
  }
  return next;
}

export interface LeaseEntry {
  readonly subnets: LeasedSubnets;
  readonly value: LeaseValue;
  /** etcd's number of the change that made the key, and of the last one. */
  readonly createRevision: string;
  readonly modRevision: string;
}

/**
 * The record of a Node that has this subnet. Another's name is its subnet: etcd knows no other.
 *
 * @param own name and addresses of this host, when the lease is ours
 */
export function leaseRecord(
  lease: LeaseEntry,
  prefix: string,
  own?: { readonly name: string; readonly addresses: readonly Address[] },
): NodeRecord {
  const { subnets, value, createRevision, modRevision } = lease;
  const key = formatLeaseKey(subnets);
  const announced = [value.PublicIP, value.PublicIPv6].flatMap((text) =>
    typeof text === 'string' && tryParseAddress(text) !== undefined ? [text] : [],
  );
  return {
    namespace: '',
    name: own?.name ?? key,
    uid: key,
    resourceVersion: modRevision,
    // What is older wins where subnets overlap: digits that sort as text.
    createdAt: createRevision.padStart(20, '0'),
    annotations: leaseAnnotations(value, prefix),
    labels: {},
    podCIDRs: [subnets.ip, subnets.ip6 ?? []].flat().map(formatPrefix),
    internalIPs: own === undefined ? announced : own.addresses.map(formatAddress),
    taintKeys: [],
    deleting: false,
  };
}
