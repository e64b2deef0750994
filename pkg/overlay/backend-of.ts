/** Which backend a configuration names, and what it takes from it. */
import type { Device } from '#pkg/host-network/device.ts';
import type { HostObject } from '#pkg/host-network/object.ts';
import { families } from '#pkg/ip/address.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import type { Backend, BackendType } from './backend.ts';
import { bgpRouting, type BgpOptions } from './bgp.ts';
import { hostGatewayObjects } from './host-gateway.ts';
import { ipipObjects } from './ipip.ts';
import type { NodeFacts } from './node-facts.ts';
import { noObjects } from './none.ts';
import { udpObjects } from './udp.ts';
import { vxlanObjects } from './vxlan.ts';
import { wireguardObjects, type WireguardOptions } from './wireguard.ts';

export interface BackendOptions {
  readonly backend: BackendType;
  readonly vni: number;
  /** UDP port of backends vxlan and udp. */
  readonly port: number;
  readonly groupPolicy?: boolean;
  readonly directRouting: boolean;
  /** Upper limit for the pods' MTU. */
  readonly mtuBytes: number | undefined;
  /** Needed by the backend of this name. */
  readonly wireguard?: WireguardOptions;
  /** Needed by the backend of this name. */
  readonly bgp?: BgpOptions;
}

/** @throws {TypeError} without the options of its own that the backend needs */
export function backendOf(options: BackendOptions): Backend {
  const { vni, port, directRouting, groupPolicy = false, wireguard, bgp } = options;
  const limit = options.mtuBytes === undefined ? {} : { mtuBytes: options.mtuBytes };
  switch (options.backend) {
    case 'vxlan': {
      const vxlan = { vni, port, directRouting, groupPolicy, ...limit };
      return (peers, self) => vxlanObjects(peers, self, vxlan);
    }
    case 'host-gw':
      return (peers, self) => hostGatewayObjects(peers, self, limit);
    case 'ipip':
      return (peers, self) => ipipObjects(peers, self, { directRouting, ...limit });
    case 'wireguard':
      if (wireguard === undefined) throw new TypeError('Cannot use WireGuard without its options');
      return (peers, self) => wireguardObjects(peers, self, { ...wireguard, ...limit });
    case 'udp':
      return (peers, self) => udpObjects(peers, self, { port, ...limit });
    case 'bgp':
      if (bgp === undefined) throw new TypeError('Cannot use BGP without its options');
      return (peers, self) => bgpRouting(peers, self, { ...bgp, ...limit });
    case 'none':
      return (_, self) => noObjects(self, limit);
  }
}

/** What each backend receives by, when peers still send by it. */
const deviceKinds: Readonly<Record<string, Device['kind']>> = {
  vxlan: 'vxlan',
  ipip: 'tunnel',
  wireguard: 'wireguard',
};

/**
 * The kinds of devices that stay although this node's backend has no use for them: of a peer that we
 * reach already, and that still sends the way it did before this node's backend was changed. Without
 * them its packets would be lost until it has heard of the change.
 */
export function formerDevices(
  peers: readonly NodeFacts[],
  objects: readonly HostObject[],
  backend: BackendType,
): ReadonlySet<Device['kind']> {
  const kinds = new Set<Device['kind']>();
  let reached: ReadonlySet<string> | undefined;
  for (const peer of peers) {
    for (const family of families) {
      const announced = peer.announcements[family]?.backend ?? '';
      const kind = announced === backend ? undefined : deviceKinds[announced];
      const podCIDR = peer.podCIDRs[family];
      if (kind === undefined || podCIDR === undefined) continue;
      reached ??= new Set(
        objects.flatMap((o) => (o.kind === 'route' ? [formatPrefix(o.destination)] : [])),
      );
      if (reached.has(formatPrefix(podCIDR))) kinds.add(kind);
    }
  }
  return kinds;
}
