/** What a pod is in the sets and maps of filter-tables.ts. Pure. */
import { parseAddress, type Address, type Family } from '#pkg/ip/address.ts';
import type { AttachmentKey } from '#pkg/cni/attachment-store.ts';
import type { ElementChange } from '#pkg/nfnetlink/nf-tables.ts';
import {
  addressField,
  concatFields,
  interfaceField,
  macField,
  portField,
  protocolField,
  type SetName,
} from '#pkg/nfnetlink/set-element.ts';
import { attachmentComment } from '#plugins/meta/attachment-comment.ts';
import type { PortMapping, PortProtocol } from '#plugins/meta/portmap-config.ts';
import type { AttachmentRecord } from './attachment-record.ts';
import { antiSpoofTable, hostPortTable } from './filter-tables.ts';

/** IPPROTO_* (include/uapi/linux/in.h) */
export const protocolNumbers: Readonly<Record<PortProtocol, number>> = {
  tcp: 6,
  udp: 17,
  sctp: 132,
};

/** Every element of a pod. */
export function podElements(record: AttachmentRecord): readonly ElementChange[] {
  return [...hostPortElements(record), ...antiSpoofElements(record)];
}

/** Whose an element is: it stands in its comment. */
export function ownerComment(key: AttachmentKey): string {
  return attachmentComment(key.network, key);
}

/** One host port in the map of a family; `exclusive`: nobody may have it already. */
export interface HostPortElement extends ElementChange {
  readonly port: PortMapping;
  readonly family: Family;
}

/**
 * The host ports of a pod, for the first address it has of each family. Each once: a port of "0.0.0.0"
 * is one of all addresses too.
 */
export function hostPortMaps(record: AttachmentRecord): readonly HostPortElement[] {
  const byKey = new Map<string, HostPortElement>();
  for (const entry of hostPortEntries(record)) {
    const key = `${entry.set.set} ${entry.element.key.join(' ')}`;
    if (!byKey.has(key)) byKey.set(key, entry);
  }
  return [...byKey.values()];
}

function hostPortEntries(record: AttachmentRecord): readonly HostPortElement[] {
  return record.hostPorts.flatMap((port) =>
    firstAddresses(record)
      .filter(({ family }) => port.hostIp === undefined || port.hostIp.family === family)
      .map((address) => ({
        port,
        family: address.family,
        set: hostPortSet(address.family, specificAddress(port) === undefined ? 'any' : 'specific'),
        element: {
          key: hostPortKey(port, specificAddress(port)),
          data: concatFields([addressField(address), portField(port.containerPort)]),
          comment: ownerComment(record),
        },
        exclusive: true,
      })),
  );
}

/** The host's address a port is only for; "0.0.0.0" and "::" are all of their family. */
export function specificAddress({ hostIp }: PortMapping): Address | undefined {
  return hostIp === undefined || hostIp.value === 0n ? undefined : hostIp;
}

/** The key in a `specific` map with an address, in an `any` map without. */
export function hostPortKey(
  { protocol, hostPort }: Pick<PortMapping, 'protocol' | 'hostPort'>,
  hostIp: Address | undefined,
): Uint8Array {
  return concatFields([
    ...(hostIp === undefined ? [] : [addressField(hostIp)]),
    protocolField(protocolNumbers[protocol]),
    portField(hostPort),
  ]);
}

type HostPortKind = 'any' | 'specific' | 'selves' | 'returns';

/** The set or map of host ports of this kind, a family each. */
export function hostPortSet(family: Family, kind: HostPortKind): SetName {
  const suffix = family === 'ip' ? '4' : '6';
  return { family: 'inet', table: hostPortTable, set: `${kind}${suffix}` };
}

/** The first address of each family: where host ports lead to. */
export function firstAddresses({
  addresses,
}: Pick<AttachmentRecord, 'addresses'>): readonly Address[] {
  return (['ip', 'ip6'] as const).flatMap(
    (family) => addresses.find(({ address }) => address.family === family)?.address ?? [],
  );
}

function hostPortElements(record: AttachmentRecord): readonly ElementChange[] {
  if (record.hostPorts.length === 0) return [];
  const comment = ownerComment(record);
  const link = interfaceField(record.reachedBy);
  const sources = firstAddresses(record).flatMap((address) => {
    const own = addressField(address);
    return [
      {
        set: hostPortSet(address.family, 'selves'),
        element: { key: concatFields([own, own]), comment },
      },
      {
        set: hostPortSet(address.family, 'returns'),
        element: { key: concatFields([own, link]), comment },
      },
    ];
  });
  return [...hostPortMaps(record), ...sources];
}

function antiSpoofElements(record: AttachmentRecord): readonly ElementChange[] {
  if (!record.antiSpoofing) return [];
  const comment = ownerComment(record);
  const link = interfaceField(record.hostLink);
  const fields: readonly (readonly [string, readonly Uint8Array[]])[] = [
    ['links', []],
    ['macs', [macField(record.mac)]],
    ...[...record.addresses.map(({ address }) => address), linkLocal(record.mac)].flatMap(
      (address) =>
        address.family === 'ip'
          ? [['addresses4', [addressField(address)]] as const]
          : ['addresses6', 'targets6'].map((set) => [set, [addressField(address)]] as const),
    ),
  ];
  const families = record.mode === 'bridge' ? (['bridge'] as const) : (['inet', 'arp'] as const);
  return families.flatMap((family) =>
    fields
      .filter(([set]) => family !== 'arp' || !set.endsWith('6'))
      .map(([set, more]) => ({
        set: { family, table: antiSpoofTable, set },
        element: { key: concatFields([link, ...more]), comment },
      })),
  );
}

/** The address an interface with this MAC gives itself (RFC 4291, appendix A). */
export function linkLocal(mac: string): Address {
  const bytes = mac.split(':').map((byte) => Number.parseInt(byte, 16));
  const [first = 0, ...rest] = bytes;
  const id = [first ^ 2, ...rest.slice(0, 2), 0xff, 0xfe, ...rest.slice(2)];
  const words = [0, 2, 4, 6].map((i) => (((id[i] ?? 0) << 8) | (id[i + 1] ?? 0)).toString(16));
  return parseAddress(`fe80::${words.join(':')}`);
}
