/**
 * The noun of this vocabulary: what a feature may want of the host's network, as data. Pure
 * values; `plan.ts` compares them, `observe.ts` and `apply.ts` turn them into rtnetlink.
 */
import type { Address, Family } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';

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
}

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
}

/** Family of a route, neighbour or address object. */
export function objectFamily(object: LinkAddress | Route | Neighbor): Family {
  switch (object.kind) {
    case 'address':
      return object.prefix.address.family;
    case 'route':
      return object.destination.address.family;
    case 'neighbor':
      return object.address.family;
  }
}
