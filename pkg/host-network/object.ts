/**
 * The noun of this vocabulary: what a feature may want of the host's network, as data. Pure
 * values; `plan.ts` compares them, `observe.ts` and `apply.ts` turn them into rtnetlink.
 */
import { formatAddress, sameAddress, type Address } from '#pkg/ip/address.ts';
import { formatPrefix, networkOf, samePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { describeDevice, isDevice, sameDevice, type Device } from './device.ts';

/**
 * `rtm_protocol` of every route we own (include/uapi/linux/rtnetlink.h keeps values above 4 for
 * users; this one is neither in its list nor in rt_protos of iproute2 and of FRR, which has 186 to 198
 * and clears up what it finds under them). How a restarted daemon knows its own.
 */
export const podwireRouteProtocol = 220;

/** Links we own carry this at the start of their IFLA_IFALIAS, devices with their kind after it. */
export const podwireAlias = 'podwire';

/** What we set as IFLA_IFALIAS of a device. */
export function aliasOf({ kind }: Device): string {
  return `${podwireAlias} ${kind}`;
}

export type HostObject =
  | Device
  | LinkAddress
  | Route
  | Neighbor
  | FdbEntry
  | WireguardPeer
  | Sysctl;

export interface LinkAddress {
  readonly kind: 'address';
  readonly link: string;
  readonly prefix: Prefix;
}

/** A unicast route in the main table with protocol {@link podwireRouteProtocol}. */
export interface Route {
  readonly kind: 'route';
  readonly destination: Prefix;
  /** Undefined on a device of ours that asks for no next hop: what it carries is a matter of it. */
  readonly via?: Address;
  readonly link: string;
  /** The next hop needs no route of its own (RTNH_F_ONLINK): a VTEP's inner address. */
  readonly onLink: boolean;
  /** On an IPv6 tunnel: the outer packet's addresses. */
  readonly encap?: { readonly local: Address; readonly remote: Address };
  /** Lower wins; undefined is the kernel's default: 0 for IPv4, 1024 for IPv6. */
  readonly metric?: number;
  /** Observed with a source or an MTU of its own, or the like; never wanted. */
  readonly altered?: true;
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
  /** Observed with a port, VNI or link of its own; never wanted. */
  readonly altered?: true;
}

/** Another node on a WireGuard device of ours. */
export interface WireguardPeer {
  readonly kind: 'wireguard-peer';
  readonly link: string;
  /** Base64, as `wg` prints it. */
  readonly publicKey: string;
  /** Where it receives. */
  readonly endpoint: { readonly address: Address; readonly port: number } | undefined;
  /** What it may send from and is sent to, in address order. No two peers have the same. */
  readonly allowedIPs: readonly Prefix[];
  /** 0 = never sends on its own account. */
  readonly keepaliveSeconds: number;
  /** Name of the secret both nodes share (`presharedKeyName`); undefined = none. */
  readonly presharedKey: string | undefined;
  /** Observed that there is a session; never wanted. */
  readonly live?: true;
  /** Observed that somebody has given it another endpoint; never wanted, and never live. */
  readonly moved?: true;
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
    case 'tunnel':
    case 'wireguard':
    case 'tun':
      return `link ${object.link}`;
    case 'wireguard-peer':
      return `wireguard-peer ${object.link} ${object.publicKey}`;
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
    case 'tunnel':
    case 'wireguard':
    case 'tun':
      return isDevice(b) && sameDevice(a, b);
    case 'wireguard-peer':
      return b.kind === 'wireguard-peer' && samePeer(a, b);
    case 'address':
      return b.kind === 'address';
    case 'route':
      return (
        b.kind === 'route' &&
        sameHop(a.via, b.via) &&
        sameHop(a.encap?.local, b.encap?.local) &&
        sameHop(a.encap?.remote, b.encap?.remote) &&
        a.link === b.link &&
        a.onLink === b.onLink &&
        a.altered === b.altered
      );
    case 'neighbor':
      return b.kind === 'neighbor' && a.mac === b.mac;
    case 'fdb':
      return b.kind === 'fdb' && sameAddress(a.remote, b.remote) && a.altered === b.altered;
    case 'sysctl':
      return b.kind === 'sysctl' && a.value === b.value && a.missing === b.missing;
  }
}

/** An object in one line, for people: what `podwire diff` prints and errors name. */
export function describeObject(object: HostObject): string {
  switch (object.kind) {
    case 'vxlan':
    case 'tunnel':
    case 'wireguard':
    case 'tun':
      return describeDevice(object);
    case 'wireguard-peer': {
      const { link, publicKey, endpoint, allowedIPs } = object;
      const at =
        endpoint === undefined
          ? ''
          : ` at ${formatAddress(endpoint.address)} port ${endpoint.port}`;
      const ranges = allowedIPs.map(formatPrefix).join(', ');
      return `wireguard peer ${publicKey} on ${link}${at} (${ranges})`;
    }
    case 'address':
      return `address ${formatPrefix(object.prefix)} on ${object.link}`;
    case 'route': {
      const via = object.via === undefined ? '' : `via ${formatAddress(object.via)} `;
      const { encap } = object;
      const to = encap === undefined ? '' : ` to ${formatAddress(encap.remote)}`;
      const hop = `${via}on ${object.link}${to}`;
      const metric = object.metric === undefined ? '' : ` metric ${object.metric}`;
      return `route ${formatPrefix(object.destination)} ${hop}${object.onLink ? ' onlink' : ''}${metric}${alteredText(object)}`;
    }
    case 'neighbor':
      return `neighbor ${formatAddress(object.address)} at ${object.mac} on ${object.link}`;
    case 'fdb':
      return `fdb ${object.mac} to ${formatAddress(object.remote)} on ${object.link}${alteredText(object)}`;
    case 'sysctl':
      return `sysctl ${object.path} ${object.missing === true ? '(missing)' : `= ${object.value}`}`;
  }
}

function alteredText({ altered }: { readonly altered?: true }): string {
  return altered === true ? ' (altered)' : '';
}

function sameHop(a: Address | undefined, b: Address | undefined): boolean {
  return a === undefined || b === undefined ? a === b : sameAddress(a, b);
}

function samePeer(a: WireguardPeer, b: WireguardPeer): boolean {
  return (
    a.endpoint?.port === b.endpoint?.port &&
    sameHop(a.endpoint?.address, b.endpoint?.address) &&
    a.keepaliveSeconds === b.keepaliveSeconds &&
    a.presharedKey === b.presharedKey &&
    a.allowedIPs.length === b.allowedIPs.length &&
    a.allowedIPs.every((prefix, i) => samePrefix(prefix, b.allowedIPs[i] ?? prefix))
  );
}

function prefixKey(prefix: Prefix): string {
  return `${addressKey(prefix.address)}/${prefix.length}`;
}

function addressKey({ family, value }: Address): string {
  return family === 'ip' ? `${family} ${Number(value)}` : `${family} ${value.toString(36)}`;
}
