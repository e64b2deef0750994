/**
 * The Node annotations by which agents tell each other where their tunnel ends. Keys and JSON are
 * flannel's under a prefix of our own (flannel Documentation/kubernetes.md, "Annotations"), so that
 * with flannel's prefix both kinds of node read each other.
 */
import { parseKey } from '#pkg/host-network/wireguard-key.ts';
import { formatAddress, tryParseAddress, type Address, type Family } from '#pkg/ip/address.ts';
import { isMacAddress } from './vtep-mac.ts';

export const defaultAnnotationPrefix = 'podwire.dev/';

/** What one Node announces for one family. */
export interface Announcement {
  /** One of ours, or whatever another agent runs. */
  readonly backend: string;
  /** Where other nodes send the tunnel's outer packets, or route to. */
  readonly publicIP: Address;
  /** Only of a vxlan backend. */
  readonly vtep?: { readonly vni: number; readonly mac: string };
  /** Only of a wireguard backend: base64. */
  readonly publicKey?: string;
}

interface FamilyKeys {
  readonly data: string;
  readonly publicIP: string;
}

const familyKeys: Readonly<Record<Family, FamilyKeys>> = {
  ip: { data: 'backend-data', publicIP: 'public-ip' },
  ip6: { data: 'backend-v6-data', publicIP: 'public-ipv6' },
};

/** Without it flannel's nodes take no notice of a Node: they think nobody manages its subnet. */
const managedKey = 'kube-subnet-manager';

/** Keys of everything we may write, without the prefix. */
const ownKeys = [
  managedKey,
  'backend-type',
  ...Object.values(familyKeys).flatMap((k) => [k.data, k.publicIP]),
];

/** The announcement of one family, undefined when there is none, or what is wrong with it. */
export function parseAnnouncement(
  annotations: Readonly<Record<string, string>>,
  family: Family,
  prefix: string,
): Announcement | string | undefined {
  const keys = familyKeys[family];
  const backend = annotations[`${prefix}backend-type`];
  const ipText = annotations[prefix + keys.publicIP];
  if (backend === undefined || ipText === undefined) return undefined;
  const publicIP = tryParseAddress(ipText);
  if (publicIP === undefined || publicIP.family !== family) {
    const kind = family === 'ip' ? 'IPv4' : 'IPv6';
    return `Cannot use annotation ${prefix}${keys.publicIP} ${JSON.stringify(ipText)}: expected an ${kind} address`;
  }
  if (backend !== 'vxlan' && backend !== 'wireguard') return { backend, publicIP };
  const data = annotations[prefix + keys.data];
  // Flannel writes "null" for a family it does not serve.
  if (data === undefined || data === 'null') return undefined;
  const wrong = (expected: string): string =>
    `Cannot use annotation ${prefix}${keys.data} ${JSON.stringify(data)}: expected ${expected}`;
  if (backend === 'wireguard') {
    const publicKey = parsePublicKey(data);
    return publicKey === undefined
      ? wrong('{"PublicKey":"…="}, 32 bytes in base64')
      : { backend, publicIP, publicKey };
  }
  const vtep = parseVtep(data);
  return vtep === undefined ? wrong('{"VNI":1,"VtepMAC":"02:…"}') : { backend, publicIP, vtep };
}

/**
 * The annotations that say this, as a patch: keys of ours that must go are `null`, and keys that
 * are right already are absent. Empty = nothing to write.
 */
export function announcementPatch(
  want: Readonly<Partial<Record<Family, Announcement>>>,
  have: Readonly<Record<string, string>>,
  prefix: string,
): Readonly<Record<string, string | null>> {
  const wanted = announcementAnnotations(want);
  // Under our own prefix nobody asks.
  if (prefix !== defaultAnnotationPrefix) wanted[managedKey] = 'true';
  const patch: Record<string, string | null> = {};
  for (const key of ownKeys) {
    const value = wanted[key];
    if (value === have[prefix + key]) continue;
    patch[prefix + key] = value ?? null;
  }
  return patch;
}

function announcementAnnotations(
  want: Readonly<Partial<Record<Family, Announcement>>>,
): Record<string, string> {
  const annotations: Record<string, string> = {};
  for (const family of ['ip', 'ip6'] as const) {
    const announcement = want[family];
    if (announcement === undefined) continue;
    const keys = familyKeys[family];
    annotations['backend-type'] = announcement.backend;
    annotations[keys.publicIP] = formatAddress(announcement.publicIP);
    if (announcement.vtep !== undefined) {
      const { vni, mac } = announcement.vtep;
      annotations[keys.data] = JSON.stringify({ VNI: vni, VtepMAC: mac });
    }
    if (announcement.publicKey !== undefined) {
      annotations[keys.data] = JSON.stringify({ PublicKey: announcement.publicKey });
    }
  }
  return annotations;
}

function parseVtep(text: string): { readonly vni: number; readonly mac: string } | undefined {
  const { VNI: vni, VtepMAC: mac } = parseFields(text);
  if (typeof vni !== 'number' || !Number.isInteger(vni) || typeof mac !== 'string') {
    return undefined;
  }
  const lower = mac.toLowerCase();
  return isMacAddress(lower) ? { vni, mac: lower } : undefined;
}

function parsePublicKey(text: string): string | undefined {
  const { PublicKey: key } = parseFields(text);
  return typeof key === 'string' && parseKey(key) !== undefined ? key : undefined;
}

/** Fields of a JSON object; none of any other text. */
function parseFields(text: string): Readonly<Record<string, unknown>> {
  try {
    const data: unknown = JSON.parse(text);
    return typeof data === 'object' && data !== null ? { ...data } : {};
  } catch {
    return {};
  }
}
