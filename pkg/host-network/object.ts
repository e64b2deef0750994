/**
 * The noun of this vocabulary: what a feature may want of the host's network, as data. Pure
 * values; `plan.ts` compares them, `observe.ts` and `apply.ts` turn them into rtnetlink.
 */
import { formatAddress, sameAddress, type Address } from '#pkg/ip/address.ts';
import { formatPrefix, networkOf, type Prefix } from '#pkg/ip/prefix.ts';

/**
 * `rtm_protocol` of every route we own (include/uapi/linux/rtnetlink.h keeps values above 4 for
 * users; 196 is in neither its list nor iproute2's rt_protos). How a restarted daemon knows its own.
 */
export const podwireRouteProtocol = 196;

/** Links we own carry this at the start of their IFLA_IFALIAS. */
export const podwireAlias = 'podwire';

export type HostObject = VxlanLink | LinkAddress | Route | Neighbor | FdbEntry | Sysctl;

/** A VXLAN device (RFC 7348), administratively up, learning off: entries come from the cluster. */
export interface VxlanLink {
  readonly kind: 'vxlan';
  readonly link: string;
  readonly vni: number;
  /** Destination UDP port. */
  readonly port: number;
  readonly mtuBytes: number;
  /** The VTEP's MAC address, lower case, colons. */
  readonly mac: string;
  /** Source address of outer packets. */
  readonly local: Address;
  /** Name of the device that carries outer packets. */
  readonly underlay: string;
  /** What is wrong with an observed device; never wanted. */
  readonly defects?: readonly VxlanDefect[];
}

/** `down`: administratively. `learning`: fills its FDB from packets, which any pod could forge. */
export type VxlanDefect = 'down' | 'learning';

export interface LinkAddress {
  readonly kind: 'address';
  readonly link: string;
  readonly prefix: Prefix;
}

/** A unicast route in the main table with protocol {@link podwireRouteProtocol}. */
export interface Route {
  readonly kind: 'route';
  readonly destination: Prefix;
  readonly via: Address;
  readonly link: string;
  /** The next hop needs no route of its own (RTNH_F_ONLINK): a VTEP's inner address. */
  readonly onLink: boolean;
  /** Lower wins; undefined is the kernel's default: 0 for IPv4, 1024 for IPv6. */
  readonly metric?: number;
}

/** A permanent neighbour entry (ARP or NDP) on one of our links. */
export interface Neighbor {
  readonly kind: 'neighbor';
  readonly link: string;
  readonly address: Address;
  readonly mac: string;
}

/** A permanent VXLAN forwarding entry: frames to `mac` go to the VTEP at `remote`. */
export interface FdbEntry {
  readonly kind: 'fdb';
  readonly link: string;
  readonly mac: string;
  readonly remote: Address;
}

/** A value under /proc/sys. */
export interface Sysctl {
  readonly kind: 'sysctl';
  /** Slashes, as in /proc/sys: "net/ipv4/ip_forward". Interface names may hold dots. */
  readonly path: string;
  readonly value: string;
  /** Do not fail where the kernel does not have it (br_netfilter not built, IPv6 off). */
  readonly optional: boolean;
  /** Observed that the kernel does not have it (`value` is empty then); never wanted. */
  readonly missing?: true;
}

/**
 * The link an object needs and goes away with: its own, or for a sysctl the one in its path
 * (net/ipv6/conf/LINK/accept_ra). Undefined for settings of the whole host.
 */
export function objectLink(object: HostObject): string | undefined {
  if (object.kind !== 'sysctl') return object.link;
  const link = linkSysctl.exec(object.path)?.[1];
  return link === 'all' || link === 'default' ? undefined : link;
}

const linkSysctl = /^net\/ipv[46]\/(?:conf|neigh)\/([^/]+)\//;

/**
 * What tells objects apart: at most one object of a key can be wanted. Numbers rather than the
 * canonical text of addresses, since a round makes a key for every object of every node.
 */
export function objectKey(object: HostObject): string {
  switch (object.kind) {
    case 'vxlan':
      return `vxlan ${object.link}`;
    case 'address':
      return `address ${object.link} ${prefixKey(object.prefix)}`;
    case 'route':
      return `route ${prefixKey(networkOf(object.destination))} ${object.metric ?? ''}`;
    case 'neighbor':
      return `neighbor ${object.link} ${addressKey(object.address)}`;
    case 'fdb':
      return `fdb ${object.link} ${object.mac}`;
    case 'sysctl':
      return `sysctl ${object.path}`;
  }
}

/** Whether two objects of one key are the same in everything the kernel keeps of them. */
export function sameObject(a: HostObject, b: HostObject): boolean {
  switch (a.kind) {
    case 'vxlan':
      return b.kind === 'vxlan' && sameVxlanMould(a, b) && sameVxlanState(a, b);
    case 'address':
      return b.kind === 'address';
    case 'route':
      return (
        b.kind === 'route' &&
        sameAddress(a.via, b.via) &&
        a.link === b.link &&
        a.onLink === b.onLink
      );
    case 'neighbor':
      return b.kind === 'neighbor' && a.mac === b.mac;
    case 'fdb':
      return b.kind === 'fdb' && sameAddress(a.remote, b.remote);
    case 'sysctl':
      return b.kind === 'sysctl' && a.value === b.value && a.missing === b.missing;
  }
}

/** Whether one device can become the other without being made anew. */
export function sameVxlanMould(a: VxlanLink, b: VxlanLink): boolean {
  return (
    a.vni === b.vni &&
    a.port === b.port &&
    sameAddress(a.local, b.local) &&
    a.underlay === b.underlay &&
    isLearning(a) === isLearning(b)
  );
}

/** An object in one line, for people: what `podwire diff` prints and errors name. */
export function describeObject(object: HostObject): string {
  switch (object.kind) {
    case 'vxlan': {
      const { link, vni, local, port, underlay, mac, mtuBytes, defects = [] } = object;
      const outer = `VNI ${vni} from ${formatAddress(local)} over ${underlay} to port ${port}`;
      const flaws = defects.map((defect) => `, ${defect}`).join('');
      return `vxlan ${link} (${outer}, MAC ${mac}, MTU ${mtuBytes}${flaws})`;
    }
    case 'address':
      return `address ${formatPrefix(object.prefix)} on ${object.link}`;
    case 'route': {
      const hop = `via ${formatAddress(object.via)} on ${object.link}`;
      const metric = object.metric === undefined ? '' : ` metric ${object.metric}`;
      return `route ${formatPrefix(object.destination)} ${hop}${object.onLink ? ' onlink' : ''}${metric}`;
    }
    case 'neighbor':
      return `neighbor ${formatAddress(object.address)} at ${object.mac} on ${object.link}`;
    case 'fdb':
      return `fdb ${object.mac} to ${formatAddress(object.remote)} on ${object.link}`;
    case 'sysctl':
      return `sysctl ${object.path} ${object.missing === true ? '(missing)' : `= ${object.value}`}`;
  }
}

function sameVxlanState(a: VxlanLink, b: VxlanLink): boolean {
  const isDown = (link: VxlanLink): boolean => link.defects?.includes('down') === true;
  return a.mac === b.mac && a.mtuBytes === b.mtuBytes && isDown(a) === isDown(b);
}

function isLearning(link: VxlanLink): boolean {
  return link.defects?.includes('learning') === true;
}

function prefixKey(prefix: Prefix): string {
  return `${addressKey(prefix.address)}/${prefix.length}`;
}

function addressKey({ family, value }: Address): string {
  return `${family} ${value.toString(36)}`;
}
