/**
 * The devices we make to carry pod traffic, as data. What a device was made with and cannot change
 * is its mould: for another mould it has to be made anew, and loses all that is on it.
 */
import { formatAddress, sameAddress, type Address } from '#pkg/ip/address.ts';

export type Device = VxlanLink | TunnelLink | WireguardLink | TunLink;

interface DeviceState {
  readonly link: string;
  readonly mtuBytes: number;
  /** What is wrong with an observed device; never wanted. */
  readonly defects?: readonly DeviceDefect[];
}

/**
 * `down`: administratively. `unmarked`: without our alias. The others come with its making. `learning`: a VXLAN device fills its
 * FDB from packets, which any pod could forge. `remote`: a tunnel leads to one node only.
 * `by-gateway`: an IPv6 tunnel takes outer addresses from elsewhere than its routes, or an IPv4 one
 * from them. `ethernet`: it takes frames, where packets are wanted. `own-header`: a TTL of its own for outer
 * packets, or the like.
 */
export type DeviceDefect =
  | 'down'
  | 'unmarked'
  | 'learning'
  | 'remote'
  | 'by-gateway'
  | 'ethernet'
  | 'own-header';

/** A VXLAN device (RFC 7348), administratively up, learning off: entries come from the cluster. */
export interface VxlanLink extends DeviceState {
  readonly kind: 'vxlan';
  readonly vni: number;
  /** Destination UDP port. */
  readonly port: number;
  /** The VTEP's MAC address, lower case, colons. */
  readonly mac: string;
  /** Source address of outer packets. */
  readonly local: Address;
  /** Name of the device that carries outer packets. */
  readonly underlay: string;
  /** Packet marks travel along as group policy (draft-smith-vxlan-group-policy). */
  readonly groupPolicy?: true;
}

/**
 * IP in IP (RFC 2003) from `local`: the gateway of the route a packet takes is the destination of
 * the outer header. Without `local`, IPv6 in IPv6 (RFC 2473), whose routes say both addresses.
 */
export interface TunnelLink extends DeviceState {
  readonly kind: 'tunnel';
  readonly local: Address | undefined;
}

/** A WireGuard device. Keys are named by what may be read: the driver holds the secret ones. */
export interface WireguardLink extends DeviceState {
  readonly kind: 'wireguard';
  /** UDP port it receives at. */
  readonly port: number;
  /** Base64, as `wg` prints it. */
  readonly publicKey: string;
}

/** A persistent TUN device, for a program that carries packets. */
export interface TunLink extends DeviceState {
  readonly kind: 'tun';
}

/** By its kind, which no other object has. */
export function isDevice(object: { readonly kind: string }): object is Device {
  return deviceKinds.has(object.kind);
}

const deviceKinds: ReadonlySet<string> = new Set<Device['kind']>([
  'vxlan',
  'tunnel',
  'wireguard',
  'tun',
]);

/** Whether one device can become the other without being made anew. */
export function sameMould(a: Device, b: Device): boolean {
  if (mouldDefects(a) !== mouldDefects(b)) return false;
  switch (a.kind) {
    case 'vxlan':
      return (
        b.kind === 'vxlan' &&
        a.vni === b.vni &&
        a.port === b.port &&
        sameAddress(a.local, b.local) &&
        a.underlay === b.underlay &&
        a.groupPolicy === b.groupPolicy
      );
    case 'tunnel':
      return b.kind === 'tunnel' && sameLocal(a.local, b.local);
    case 'wireguard':
    case 'tun':
      return b.kind === a.kind;
  }
}

/** Whether two devices are the same in everything the kernel keeps of them. */
export function sameDevice(a: Device, b: Device): boolean {
  if (!sameMaking(a, b) || a.mtuBytes !== b.mtuBytes) return false;
  if (a.kind === 'wireguard' && b.kind === 'wireguard' && a.port !== b.port) return false;
  return passingDefects.every((defect) => hasDefect(a, defect) === hasDefect(b, defect));
}

/**
 * Whether two devices were made alike, down to what tells one node's from another's: a VTEP's MAC
 * address, a key. Not what can be changed without making them anew: whether they are up, their MTU.
 */
export function sameMaking(a: Device, b: Device): boolean {
  if (!sameMould(a, b)) return false;
  if (a.kind === 'vxlan') return b.kind === 'vxlan' && a.mac === b.mac;
  if (a.kind !== 'wireguard') return true;
  return b.kind === 'wireguard' && a.publicKey === b.publicKey;
}

/** Whether the kernel refuses to have both at once, though their names differ. */
export function excludes(a: Device, b: Device): boolean {
  if (a.kind === 'vxlan' && b.kind === 'vxlan') {
    // Devices of one port share a socket, and it either knows group policy or does not.
    const together = a.port === b.port && a.local.family === b.local.family;
    return together && (a.vni === b.vni || a.groupPolicy !== b.groupPolicy);
  }
  if (a.kind === 'tunnel' && b.kind === 'tunnel') return sameLocal(a.local, b.local);
  return a.kind === 'wireguard' && b.kind === 'wireguard' && a.port === b.port;
}

/** In one line, for people. */
export function describeDevice(device: Device): string {
  const { kind, link, mtuBytes, defects = [] } = device;
  const flaws = defects.map((defect) => `, ${defect}`).join('');
  return `${kind} ${link} (${detailsOf(device)}MTU ${mtuBytes}${flaws})`;
}

function detailsOf(device: Device): string {
  switch (device.kind) {
    case 'vxlan': {
      const { vni, local, underlay, port, mac, groupPolicy } = device;
      const outer = `VNI ${vni} from ${formatAddress(local)} over ${underlay} to port ${port}`;
      return `${outer}, MAC ${mac}, ${groupPolicy === true ? 'group policy, ' : ''}`;
    }
    case 'tunnel':
      return device.local === undefined ? 'IPv6, ' : `from ${formatAddress(device.local)}, `;
    case 'wireguard':
      return `port ${device.port}, key ${device.publicKey}, `;
    case 'tun':
      return '';
  }
}

function sameLocal(a: Address | undefined, b: Address | undefined): boolean {
  return a === undefined || b === undefined ? a === b : sameAddress(a, b);
}

/** What can be mended on a device that is there. */
const passingDefects: readonly DeviceDefect[] = ['down', 'unmarked'];

function hasDefect({ defects = [] }: Device, defect: DeviceDefect): boolean {
  return defects.includes(defect);
}

function mouldDefects({ defects = [] }: Device): string {
  return defects.filter((defect) => !passingDefects.includes(defect)).join(' ');
}
