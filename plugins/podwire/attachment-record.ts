/** What podwire remembers of a pod it connected: all that DEL, GC and CHECK need to know. */
import { formatAddress, tryParseAddress } from '#pkg/ip/address.ts';
import { formatPrefix, tryParsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import type { AttachmentKey, StoredAttachment } from '#pkg/cni/attachment-store.ts';
import type { PortMapping } from '#plugins/meta/portmap-config.ts';

export interface AttachmentRecord extends AttachmentKey {
  readonly mode: PodMode;
  /** The host's end of the pod's link. */
  readonly hostLink: string;
  /** The host's link by which packets get to the pod: the bridge, or `hostLink`. */
  readonly reachedBy: string;
  /** Of the pod's interface. */
  readonly mac: string;
  readonly addresses: readonly Prefix[];
  readonly hostPorts: readonly PortMapping[];
  readonly antiSpoofing: boolean;
  /** Host ports are iptables rules, because this node has no nft. */
  readonly iptables: boolean;
}

/** How pods meet the host: as ports of a bridge, or each on a link of its own, with a route. */
export type PodMode = 'bridge' | 'routed';

/** The record as JSON that people can read. */
export function recordDocument(record: AttachmentRecord): Readonly<Record<string, unknown>> {
  const { mode, hostLink, reachedBy, mac, antiSpoofing, iptables } = record;
  const hostPorts = record.hostPorts.map(({ hostIp, ...port }) => ({
    ...port,
    ...(hostIp === undefined ? {} : { hostIP: formatAddress(hostIp) }),
  }));
  const addresses = record.addresses.map(formatPrefix);
  return { mode, hostLink, reachedBy, mac, addresses, hostPorts, antiSpoofing, iptables };
}

/** Reads a record; undefined when the file does not hold one that this version can use. */
export function readRecord(stored: StoredAttachment): AttachmentRecord | undefined {
  const { network, containerId, ifName, document } = stored;
  const { mode, hostLink, reachedBy, mac, antiSpoofing } = document ?? {};
  if (mode !== 'bridge' && mode !== 'routed') return undefined;
  if (typeof hostLink !== 'string' || typeof reachedBy !== 'string') return undefined;
  if (typeof mac !== 'string' || typeof antiSpoofing !== 'boolean') return undefined;
  const addresses = readAll(document?.['addresses'], readAddress);
  const hostPorts = readAll(document?.['hostPorts'], readHostPort);
  if (addresses === undefined || hostPorts === undefined) return undefined;
  return {
    network,
    containerId,
    ifName,
    mode,
    hostLink,
    reachedBy,
    mac,
    addresses,
    hostPorts,
    antiSpoofing,
    iptables: document?.['iptables'] === true,
  };
}

/** All items; undefined when one of them is not what it should be. */
function readAll<T>(value: unknown, read: (item: unknown) => T | undefined): T[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const items = value.flatMap((item: unknown) => read(item) ?? []);
  return items.length === value.length ? items : undefined;
}

function readAddress(value: unknown): Prefix | undefined {
  return typeof value === 'string' ? tryParsePrefix(value) : undefined;
}

function readHostPort(value: unknown): PortMapping | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { protocol, hostPort, containerPort, hostIP } = value as Readonly<Record<string, unknown>>;
  if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp') return undefined;
  if (typeof hostPort !== 'number' || typeof containerPort !== 'number') return undefined;
  const hostIp = typeof hostIP === 'string' ? tryParseAddress(hostIP) : undefined;
  if (hostIP !== undefined && hostIp === undefined) return undefined;
  return { protocol, hostPort, containerPort, hostIp };
}
