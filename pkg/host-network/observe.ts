/**
 * What the kernel has of ours, and nothing else:
 * - devices for pod traffic whose alias starts with {@link podwireAlias}, or that are made exactly as
 *   one that is wanted (who takes the alias away takes nobody's device), and on them every address
 *   but link-local ones (which are the kernel's), every permanent neighbour, forwarding entry and
 *   WireGuard peer;
 * - routes of the main table with {@link podwireRouteProtocol} that have a gateway, or lead to such
 *   a device;
 * - the sysctls that are wanted.
 */
import { families, type Family } from '#pkg/ip/address.ts';
import { containsAddress, parsePrefix } from '#pkg/ip/prefix.ts';
import type { LinkAddressRecord } from '#pkg/netlink/address.ts';
import type { Link } from '#pkg/netlink/link.ts';
import type { ForwardingRecord, NeighborRecord } from '#pkg/netlink/neighbor.ts';
import type { RouteEntry } from '#pkg/netlink/route.ts';
import { normalizeSysctl } from '#pkg/sysctl/sysctl.ts';
import { isDevice, sameMaking, type Device, type DeviceDefect } from './device.ts';
import { podwireAlias, podwireRouteProtocol, type HostObject } from './object.ts';
import type { ObservedWireguard } from './rtnetlink-wireguard.ts';

/** The readings this needs; rtnetlink.ts takes them from the kernel. */
export interface KernelReader {
  links(): readonly Link[];
  addresses(linkIndex: number): readonly LinkAddressRecord[];
  neighbors(family: Family, linkIndex: number): readonly NeighborRecord[];
  forwarding(linkIndex: number): readonly ForwardingRecord[];
  /** A WireGuard device of this name. */
  wireguard(link: string): ObservedWireguard;
  /** Of the main table. */
  routes(family: Family, protocol: number): readonly RouteEntry[];
  /** Undefined when the kernel has no such setting. */
  sysctl(path: string): string | undefined;
}

/**
 * @param want decides which sysctls are read, and which devices are ours by the way they are made
 * @throws {NetlinkError} when a table cannot be read
 */
export function observeHostNetwork(
  kernel: KernelReader,
  want: readonly HostObject[],
): readonly HostObject[] {
  const links = kernel.links();
  const names = new Map(links.map(({ index, name }) => [index, name]));
  const objects: HostObject[] = [];
  const devices = new Set<string>();
  const wanted = new Map(want.filter(isDevice).map((device) => [device.link, device]));
  for (const link of links) {
    const isMarked = hasMark(link);
    const twin = wanted.get(link.name);
    if (!isMarked && twin === undefined) continue;
    const observed = deviceOf(link, names, kernel);
    const [device] = observed;
    if (device === undefined) continue;
    if (!isMarked && !(twin !== undefined && isDevice(device) && sameMaking(twin, device)))
      continue;
    devices.add(link.name);
    objects.push(...observed, ...objectsOn(link, kernel));
  }
  for (const family of families) {
    for (const route of kernel.routes(family, podwireRouteProtocol)) {
      objects.push(...routeOf(route, names, devices));
    }
  }
  for (const { path, optional } of want.filter((object) => object.kind === 'sysctl')) {
    const value = kernel.sysctl(path);
    objects.push(
      value === undefined
        ? { kind: 'sysctl', path, value: '', optional, missing: true }
        : { kind: 'sysctl', path, value: normalizeSysctl(value), optional },
    );
  }
  return objects;
}

/** The device and, of WireGuard, its peers; nothing for a link of another kind. */
function deviceOf(
  link: Link,
  names: ReadonlyMap<number, string>,
  kernel: KernelReader,
): readonly HostObject[] {
  const { name, vxlan, tunnel, mtuBytes } = link;
  const state = { link: name, mtuBytes, ...defectsOf(link) };
  // A device without an address is none that we make: it compares as different and is made anew.
  const nowhere = { family: 'ip', value: 0n } as const;
  if (vxlan !== undefined) {
    const { vni, port, local = nowhere, underlayIndex = 0, groupPolicy } = vxlan;
    const device: Device = {
      kind: 'vxlan',
      ...state,
      vni,
      port,
      mac: link.mac ?? '',
      local,
      underlay: names.get(underlayIndex) ?? '',
      ...(groupPolicy === true ? { groupPolicy } : {}),
    };
    return [device];
  }
  if (tunnel !== undefined) return [{ kind: 'tunnel', ...state, local: tunnel.local }];
  if (link.kind === 'tun') return [{ kind: 'tun', ...state }];
  if (link.kind !== 'wireguard') return [];
  const { publicKey, port, peers } = kernel.wireguard(name);
  return [{ kind: 'wireguard', ...state, publicKey, port }, ...peers];
}

function hasMark({ alias }: Link): boolean {
  return alias?.startsWith(podwireAlias) === true;
}

function defectsOf(link: Link): { readonly defects?: readonly DeviceDefect[] } {
  const { kind, mac, up, vxlan, tunnel } = link;
  const defects: DeviceDefect[] = [];
  if (!up) defects.push('down');
  if (!hasMark(link)) defects.push('unmarked');
  // A TAP device is of the same kind.
  if (kind === 'tun' && mac !== undefined) defects.push('ethernet');
  if (vxlan?.learning === true) defects.push('learning');
  if (tunnel?.remote !== undefined) defects.push('remote');
  if (tunnel?.byRoute === (kind === 'ipip')) defects.push('by-gateway');
  if ((vxlan ?? tunnel)?.hasOwnHeader === true) defects.push('own-header');
  return defects.length === 0 ? {} : { defects };
}

function objectsOn({ index, name: link, vxlan }: Link, kernel: KernelReader): HostObject[] {
  const objects: HostObject[] = [];
  for (const { prefix } of kernel.addresses(index)) {
    if (!containsAddress(linkLocal, prefix.address))
      objects.push({ kind: 'address', link, prefix });
  }
  if (vxlan === undefined) return objects;
  for (const family of families) {
    for (const { address, mac, permanent } of kernel.neighbors(family, index)) {
      if (permanent && mac !== undefined) objects.push({ kind: 'neighbor', link, address, mac });
    }
  }
  for (const { mac, remote, permanent, special } of kernel.forwarding(index)) {
    const altered = special ? { altered: true as const } : {};
    if (permanent) objects.push({ kind: 'fdb', link, mac, remote, ...altered });
  }
  return objects;
}

const linkLocal = parsePrefix('fe80::/10');

function routeOf(
  route: RouteEntry,
  names: ReadonlyMap<number, string>,
  devices: ReadonlySet<string>,
): HostObject[] {
  const link = names.get(route.linkIndex ?? 0);
  if (link === undefined || (route.gateway === undefined && !devices.has(link))) return [];
  return [
    {
      kind: 'route',
      destination: route.destination,
      ...(route.gateway === undefined ? {} : { via: route.gateway }),
      link,
      onLink: route.onLink === true,
      ...(route.encap === undefined ? {} : { encap: route.encap }),
      ...(route.metric === undefined ? {} : { metric: route.metric }),
      ...(isAltered(route) ? { altered: true } : {}),
    },
  ];
}

/** Whether it has what we never give a route. */
function isAltered({ source, mtuBytes, advertisedMssBytes }: RouteEntry): boolean {
  return [source, mtuBytes, advertisedMssBytes].some((value) => value !== undefined);
}
