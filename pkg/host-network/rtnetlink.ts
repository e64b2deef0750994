/** The host network's driver: observe.ts and apply.ts reach the kernel through this. */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { addAddressRequest, deleteAddressRequest, listAddresses } from '#pkg/netlink/address.ts';
import { changeLinkRequest, deleteLinkRequest, type LinkChange } from '#pkg/netlink/link-change.ts';
import { createTunnel } from '#pkg/netlink/link-create-overlay.ts';
import { createVxlan } from '#pkg/netlink/link-create.ts';
import { getLink, listLinks } from '#pkg/netlink/link.ts';
import {
  deleteForwardingRequest,
  deleteNeighborRequest,
  listForwarding,
  listNeighbors,
  putForwardingRequest,
  putNeighborRequest,
} from '#pkg/netlink/neighbor.ts';
import {
  addRouteRequest,
  deleteRouteRequest,
  listRoutes,
  replaceRouteRequest,
  type RouteEntry,
} from '#pkg/netlink/route.ts';
import type { NetlinkRequest, NetlinkSocket } from '#pkg/netlink/socket.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';
import type { KernelWriter } from './apply.ts';
import type { KernelReader } from './observe.ts';
import { isDevice, type Device, type VxlanLink } from './device.ts';
import { aliasOf, podwireRouteProtocol, type HostObject, type Route } from './object.ts';
import type { WireguardDriver } from './rtnetlink-wireguard.ts';
import { withHolders } from './route-holder.ts';
import type { Step } from './step.ts';

export type HostKernel = KernelReader & KernelWriter;

/** What rtnetlink has no words for; a kernel without them cannot have these devices either. */
export interface DeviceDrivers {
  readonly wireguard?: WireguardDriver;
  /** Makes a persistent TUN device, down. */
  readonly createTun?: (name: string) => void;
}

/**
 * The network of the socket's namespace. Sysctls and TUN devices are those of the namespace of the
 * calling thread, which must be the same one.
 */
export function openHostKernel(socket: NetlinkSocket, drivers: DeviceDrivers = {}): HostKernel {
  return {
    links: () => listLinks(socket),
    addresses: (linkIndex) => listAddresses(socket, { linkIndex }),
    neighbors: (family, linkIndex) => listNeighbors(socket, { family, linkIndex }),
    forwarding: (linkIndex) => listForwarding(socket, linkIndex),
    wireguard: (link) => driver(drivers.wireguard, 'WireGuard').read(link),
    routes: (family, protocol) => listRoutes(socket, { family, protocol }),
    sysctl: readSysctl,
    write: (steps) => withHolders(socket, steps, writeSteps(socket, drivers, steps)),
  };
}

function driver<T>(part: T | undefined, what: string): T {
  if (part !== undefined) return part;
  throw new AgentError('EOPNOTSUPP', `Cannot use ${what}: this driver was opened without it`);
}

/** Carries out steps, as many as possible in one message to the kernel. */
function writeSteps(
  socket: NetlinkSocket,
  drivers: DeviceDrivers,
  steps: readonly Step[],
): (Error | undefined)[] {
  const results: (Error | undefined)[] = steps.map(() => undefined);
  const indexOf = linkIndexes(socket);
  const requests: Numbered[] = [];
  const peerRequests: Numbered[] = [];
  for (const [i, step] of steps.entries()) {
    const { object } = step;
    try {
      if (object.kind === 'wireguard-peer') {
        const request = driver(drivers.wireguard, 'WireGuard').peerRequest(step, object);
        peerRequests.push({ i, request });
        continue;
      }
      const request = requestOf(step, indexOf);
      if (request === undefined) writeAlone(socket, drivers, step, indexOf);
      else requests.push({ i, request });
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      results[i] = error;
    }
  }
  const answers = (batch: readonly Numbered[], by: Pick<NetlinkSocket, 'batch'>): void => {
    const outcomes = by.batch(batch.map(({ request }) => request));
    for (const [n, { i }] of batch.entries()) results[i] = outcomes[n]?.error;
  };
  answers(requests, socket);
  if (peerRequests.length > 0) answers(peerRequests, driver(drivers.wireguard, 'WireGuard'));
  return results;
}

interface Numbered {
  /** Of the step. */
  readonly i: number;
  readonly request: NetlinkRequest;
}

/** Looks names up once a batch. */
function linkIndexes(socket: NetlinkSocket): (name: string) => number {
  const known = new Map<string, number>();
  return (name) => {
    const index = known.get(name) ?? getLink(socket, name)?.index;
    if (index === undefined) {
      throw new AgentError('ENODEV', `Cannot find link ${name}: there is none of this name`);
    }
    known.set(name, index);
    return index;
  };
}

/** The message for a step; undefined for what takes more than one message, or none. */
function requestOf(step: Step, indexOf: (name: string) => number): NetlinkRequest | undefined {
  const { object } = step;
  const putting = step.op === 'put';
  switch (object.kind) {
    case 'vxlan':
    case 'tunnel':
    case 'tun':
    case 'wireguard':
      if (!putting) return deleteLinkRequest(object.link);
      if (step.replaces === undefined || object.kind === 'wireguard') return undefined;
      return changeLinkRequest(object.link, deviceChange(object, step.replaces));
    case 'address': {
      const address = { linkIndex: indexOf(object.link), prefix: object.prefix };
      // Nobody else has an address of ours: the range is this node's alone.
      return putting
        ? addAddressRequest({ ...address, noDad: true })
        : deleteAddressRequest(address);
    }
    case 'route': {
      const route = routeEntry(object, indexOf(object.link));
      if (!putting) return deleteRouteRequest(route);
      return step.replaces === undefined ? addRouteRequest(route) : replaceRouteRequest(route);
    }
    case 'neighbor': {
      const neighbor = { ...object, linkIndex: indexOf(object.link) };
      return putting ? putNeighborRequest(neighbor) : deleteNeighborRequest(neighbor);
    }
    case 'fdb': {
      const entry = { ...object, linkIndex: indexOf(object.link) };
      return putting ? putForwardingRequest(entry) : deleteForwardingRequest(entry);
    }
    case 'wireguard-peer':
    case 'sysctl':
      return undefined;
  }
}

/** A MAC address that is set again, though the same, empties the device's neighbour tables. */
function deviceChange(object: Device, replaces: HostObject): LinkChange {
  const have = replaces.kind === 'vxlan' ? replaces : undefined;
  return {
    up: true,
    mtuBytes: object.mtuBytes,
    alias: aliasOf(object),
    ...(object.kind !== 'vxlan' || object.mac === have?.mac ? {} : { mac: object.mac }),
  };
}

function writeAlone(
  socket: NetlinkSocket,
  drivers: DeviceDrivers,
  step: Step,
  indexOf: (name: string) => number,
): void {
  const { object } = step;
  if (isDevice(object) && step.op === 'put' && step.replaces === undefined) {
    refuseTaken(socket, object.link);
  }
  switch (object.kind) {
    case 'sysctl':
      // A device that has just been made may have it so, which is enough where /proc/sys is read-only.
      if (readSysctl(object.path) !== object.value) writeSysctl(object.path, object.value);
      break;
    case 'vxlan':
      makeVxlan(socket, object, indexOf(object.underlay));
      break;
    case 'tunnel': {
      const { link: name, local, mtuBytes } = object;
      createTunnel(socket, { name, local, mtuBytes, alias: aliasOf(object) });
      break;
    }
    case 'wireguard': {
      const exists = step.op === 'put' && step.replaces !== undefined;
      driver(drivers.wireguard, 'WireGuard').put(socket, object, exists);
      break;
    }
    case 'tun': {
      const { link, mtuBytes } = object;
      driver(drivers.createTun, 'TUN devices')(link);
      socket.request(changeLinkRequest(link, { up: true, mtuBytes, alias: aliasOf(object) }));
      break;
    }
    case 'address':
    case 'route':
    case 'neighbor':
    case 'fdb':
    case 'wireguard-peer':
      throw new TypeError(`Cannot write ${object.kind} alone: it is a message`);
  }
}

/** Before anything is changed: a TUN device of the name would be taken, and others change for a moment. */
function refuseTaken(socket: NetlinkSocket, name: string): void {
  if (getLink(socket, name) === undefined) return;
  throw new AgentError(
    'NameTaken',
    `Cannot create ${name}: there is a device of this name that this node did not make so; if nobody uses it any more: ip link del ${name}`,
  );
}

function makeVxlan(socket: NetlinkSocket, object: VxlanLink, underlayIndex: number): void {
  const { link: name, vni, port, local, mac, mtuBytes, groupPolicy = false } = object;
  const alias = aliasOf(object);
  const vxlan = { name, vni, port, local, mac, mtuBytes, underlayIndex, alias, groupPolicy };
  try {
    createVxlan(socket, vxlan);
  } catch (cause) {
    const holder = isErrno(cause, 'EEXIST') ? holderOfVni(socket, object) : undefined;
    if (holder === undefined) throw cause;
    throw new AgentError(
      'VniTaken',
      `Cannot create ${name}: ${holder} has VNI ${vni} and port ${port} already; if nobody uses it any more: ip link del ${holder}`,
      { cause },
    );
  }
}

/** The kernel has one device of a VNI and port for each family. */
function holderOfVni(
  socket: NetlinkSocket,
  { link, vni, port, local }: VxlanLink,
): string | undefined {
  return listLinks(socket).find(
    ({ name, vxlan }) =>
      name !== link &&
      vxlan?.vni === vni &&
      vxlan.port === port &&
      (vxlan.local?.family ?? 'ip') === local.family,
  )?.name;
}

function routeEntry(route: Route, linkIndex: number): RouteEntry {
  return {
    destination: route.destination,
    ...(route.via === undefined ? {} : { gateway: route.via }),
    linkIndex,
    onLink: route.onLink,
    ...(route.encap === undefined ? {} : { encap: route.encap }),
    protocol: podwireRouteProtocol,
    ...(route.metric === undefined ? {} : { metric: route.metric }),
  };
}
