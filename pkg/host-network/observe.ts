/**
 * What the kernel has of ours, and nothing else:
 * - VXLAN devices whose alias starts with {@link podwireAlias}, and on them every address but
 *   link-local ones (which are the kernel's), every permanent neighbour and forwarding entry;
 * - routes of the main table with {@link podwireRouteProtocol} and a gateway, on any link;
 * - the sysctls that are asked for.
 */
import { families, type Family } from '#pkg/ip/address.ts';
import { containsAddress, parsePrefix } from '#pkg/ip/prefix.ts';
import type { LinkAddressRecord } from '#pkg/netlink/address.ts';
import type { Link } from '#pkg/netlink/link.ts';
import type { ForwardingRecord, NeighborRecord } from '#pkg/netlink/neighbor.ts';
import type { RouteEntry } from '#pkg/netlink/route.ts';
import { normalizeSysctl } from '#pkg/sysctl/sysctl.ts';
import {
  podwireAlias,
  podwireRouteProtocol,
  type HostObject,
  type Sysctl,
  type VxlanDefect,
  type VxlanLink,
} from './object.ts';

/** The readings this needs; rtnetlink.ts takes them from the kernel. */
export interface KernelReader {
  links(): readonly Link[];
  addresses(linkIndex: number): readonly LinkAddressRecord[];
  neighbors(family: Family, linkIndex: number): readonly NeighborRecord[];
  forwarding(linkIndex: number): readonly ForwardingRecord[];
  /** Of the main table. */
  routes(family: Family, protocol: number): readonly RouteEntry[];
  /** Undefined when the kernel has no such setting. */
  sysctl(path: string): string | undefined;
}

/**
 * @param sysctls those that are wanted: only they are read
 * @throws {NetlinkError} when a table cannot be read
 */
export function observeHostNetwork(
  kernel: KernelReader,
  sysctls: readonly Sysctl[],
): readonly HostObject[] {
  const links = kernel.links();
  const names = new Map(links.map(({ index, name }) => [index, name]));
  const objects: HostObject[] = [];
  for (const link of links) {
    const vxlan = vxlanOf(link, names);
    if (vxlan !== undefined) objects.push(vxlan, ...objectsOn(link, kernel));
  }
  for (const family of families) {
    for (const route of kernel.routes(family, podwireRouteProtocol)) {
      objects.push(...routeOf(route, names));
    }
  }
  for (const { path, optional } of sysctls) {
    const value = kernel.sysctl(path);
    objects.push(
      value === undefined
        ? { kind: 'sysctl', path, value: '', optional, missing: true }
        : { kind: 'sysctl', path, value: normalizeSysctl(value), optional },
    );
  }
  return objects;
}

function vxlanOf(link: Link, names: ReadonlyMap<number, string>): VxlanLink | undefined {
  const { name, vxlan, mtuBytes, alias } = link;
  if (vxlan === undefined || alias?.startsWith(podwireAlias) !== true) return undefined;
  const defects: VxlanDefect[] = [];
  if (!link.up) defects.push('down');
  if (vxlan.learning) defects.push('learning');
  return {
    kind: 'vxlan',
    link: name,
    vni: vxlan.vni,
    port: vxlan.port,
    mtuBytes,
    mac: link.mac ?? '',
    // A device without them is none that we make: it compares as different and is made anew.
    local: vxlan.local ?? { family: 'ip', value: 0n },
    underlay: names.get(vxlan.underlayIndex ?? 0) ?? '',
    ...(defects.length === 0 ? {} : { defects }),
  };
}

function objectsOn({ index, name: link }: Link, kernel: KernelReader): HostObject[] {
  const objects: HostObject[] = [];
  for (const { prefix } of kernel.addresses(index)) {
    if (!containsAddress(linkLocal, prefix.address))
      objects.push({ kind: 'address', link, prefix });
  }
  for (const family of families) {
    for (const { address, mac, permanent } of kernel.neighbors(family, index)) {
      if (permanent && mac !== undefined) objects.push({ kind: 'neighbor', link, address, mac });
    }
  }
  for (const { mac, remote, permanent } of kernel.forwarding(index)) {
    if (permanent) objects.push({ kind: 'fdb', link, mac, remote });
  }
  return objects;
}

const linkLocal = parsePrefix('fe80::/10');

function routeOf(route: RouteEntry, names: ReadonlyMap<number, string>): HostObject[] {
  const link = names.get(route.linkIndex ?? 0);
  if (link === undefined || route.gateway === undefined) return [];
  return [
    {
      kind: 'route',
      destination: route.destination,
      via: route.gateway,
      link,
      onLink: route.onLink === true,
      ...(route.metric === undefined ? {} : { metric: route.metric }),
    },
  ];
}
