/**
 * The Node annotations by which agents tell each other where their tunnel ends. Keys and JSON are
 * flannel's under a prefix of our own (flannel Documentation/kubernetes.md, "Annotations"), so that
 * with flannel's prefix both kinds of node read each other.
 */
import { parseKey } from '#pkg/host-network/wireguard-key.ts';
import {
  families,
  formatAddress,
  tryParseAddress,
  type Address,
  type Family,
} from '#pkg/ip/address.ts';
import { isHostAddress } from './host-address.ts';
import { isMacAddress } from './vtep-mac.ts';

export const defaultAnnotationPrefix = 'podwire.dev/';

/** What one Node announces for one family. */
export interface Announcement {
  /** One of ours, or whatever another agent runs. */
  readonly backend: string;
  /** Where other nodes send the tunnel's outer packets, or route to. */
  readonly publicIP: Address;
  /** Only of a vxlan backend; of a VNI its last 16 bits, as announced. */
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
  // flannel's host-gw says so in a cluster of the other family.
  if (publicIP?.value === 0n && publicIP.family === family) return undefined;
  const isFamily = publicIP?.family === family;
  if (!isFamily || !isHostAddress(publicIP)) {
    const kind = `${family === 'ip' ? 'IPv4' : 'IPv6'} address${isFamily ? ' of one host' : ''}`;
    return `Cannot use annotation ${prefix}${keys.publicIP} ${JSON.stringify(ipText)}: expected an ${kind}`;
  }
  if (backend !== 'vxlan' && backend !== 'wireguard') return { backend, publicIP };
  const data = annotations[prefix + keys.data];
  // Flannel writes "null" for a family it does not serve.
  if (data === undefined || data === noData) return undefined;
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
 * are right already are absent, unless flannel needs to see them change. Empty = nothing to write.
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
    if (sameSaid(key, have[prefix + key], value)) continue;
    patch[prefix + key] = value ?? null;
  }
  if (prefix === defaultAnnotationPrefix) return patch;
  return { ...patch, ...respelling(want, { have, patch, prefix }) };
}

/**
 * flannel of two families takes no notice of a Node's change unless something changes of each family
 * (pkg/subnet/kube/kube.go, handleUpdateLeaseEvent): of the one that stays as it is, the JSON is
 * then spelled otherwise: with a space before it, which flannel's search for its own MAC bears.
 */
function respelling(
  want: Readonly<Partial<Record<Family, Announcement>>>,
  said: {
    readonly have: Readonly<Record<string, string>>;
    readonly patch: Readonly<Record<string, string | null>>;
    readonly prefix: string;
  },
): Readonly<Record<string, string | null>> {
  const { have, patch, prefix } = said;
  const isChanged = (family: Family): boolean =>
    Object.values(familyKeys[family]).some((key) => patch[prefix + key] !== undefined);
  const still = families.filter((family) => want[family] !== undefined && !isChanged(family));
  const [family] = still;
  if (family === undefined || !families.some(isChanged)) return {};
  const key = prefix + familyKeys[family].data;
  const data = have[key];
  // What has no data for flannel has the data "null" for it.
  if (data === undefined) return { [key]: noData };
  return {
    [key]: data === noData ? null : data === data.trimStart() ? ` ${data}` : data.trimStart(),
  };
}

const noData = 'null';
const dataKeys: ReadonlySet<string> = new Set(Object.values(familyKeys).map(({ data }) => data));

/** Whether an annotation says what is wanted, in whatever spelling. */
function sameSaid(key: string, have: string | undefined, want: string | undefined): boolean {
  if (!dataKeys.has(key)) return have === want;
  return (have === noData ? undefined : have?.trimStart()) === want;
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
      annotations[keys.data] = JSON.stringify({ VNI: vni % announcedVnis, VtepMAC: mac });
    }
    if (announcement.publicKey !== undefined) {
      annotations[keys.data] = JSON.stringify({ PublicKey: announcement.publicKey });
    }
  }
  return annotations;
}

/** flannel's field has 16 bits, though a VNI has 24: a larger number there spoils the whole record. */
const announcedVnis = 0x1_0000;

/** Whether a peer's announcement may be of this VNI. */
export function isAnnouncedVni(announced: number, vni: number): boolean {
  return announced % announcedVnis === vni % announcedVnis;
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
