/** The host network's driver: observe.ts and apply.ts reach the kernel through this. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { addAddressRequest, deleteAddressRequest, listAddresses } from '#pkg/netlink/address.ts';
import { changeLinkRequest, deleteLinkRequest, type LinkChange } from '#pkg/netlink/link-change.ts';
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
import {
  podwireAlias,
  podwireRouteProtocol,
  type HostObject,
  type Route,
  type VxlanLink,
} from './object.ts';
import type { Step } from './step.ts';

export type HostKernel = KernelReader & KernelWriter;

/**
 * The network of the socket's namespace. Sysctls are those of the namespace of the calling thread,
 * which must be the same one.
 */
export function openHostKernel(socket: NetlinkSocket): HostKernel {
  return {
    links: () => listLinks(socket),
    addresses: (linkIndex) => listAddresses(socket, { linkIndex }),
    neighbors: (family, linkIndex) => listNeighbors(socket, { family, linkIndex }),
    forwarding: (linkIndex) => listForwarding(socket, linkIndex),
    routes: (family, protocol) => listRoutes(socket, { family, protocol }),
    sysctl: readSysctl,
    write: (steps) => writeSteps(socket, steps),
  };
}

/** Carries out steps, as many as possible in one message to the kernel. */
function writeSteps(socket: NetlinkSocket, steps: readonly Step[]): (Error | undefined)[] {
  const results: (Error | undefined)[] = steps.map(() => undefined);
  const indexOf = linkIndexes(socket);
  const requests: NetlinkRequest[] = [];
  const positions: number[] = [];
  for (const [i, step] of steps.entries()) {
    try {
      const request = requestOf(step, indexOf);
      if (request === undefined) {
        writeAlone(socket, step.object, indexOf);
        continue;
      }
      requests.push(request);
      positions.push(i);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      results[i] = error;
    }
  }
  for (const [i, { error }] of socket.batch(requests).entries()) {
    results[positions[i] ?? 0] = error;
  }
  return results;
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
      if (!putting) return deleteLinkRequest(object.link);
      if (step.replaces === undefined) return undefined;
      return changeLinkRequest(object.link, vxlanChange(object, step.replaces));
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
    case 'sysctl':
      return undefined;
  }
}

/** A MAC address that is set again, though the same, empties the device's neighbour tables. */
function vxlanChange(object: VxlanLink, replaces: HostObject): LinkChange {
  const have = replaces.kind === 'vxlan' ? replaces : undefined;
  return {
    up: true,
    mtuBytes: object.mtuBytes,
    ...(object.mac === have?.mac ? {} : { mac: object.mac }),
  };
}

function writeAlone(
  socket: NetlinkSocket,
  object: HostObject,
  indexOf: (name: string) => number,
): void {
  if (object.kind === 'sysctl') writeSysctl(object.path, object.value);
  else if (object.kind === 'vxlan') makeVxlan(socket, object, indexOf(object.underlay));
}

function makeVxlan(socket: NetlinkSocket, object: VxlanLink, underlayIndex: number): void {
  const { link: name, vni, port, local, mac, mtuBytes } = object;
  const alias = `${podwireAlias} vxlan`;
  createVxlan(socket, { name, vni, port, local, mac, mtuBytes, underlayIndex, alias });
}

function routeEntry(route: Route, linkIndex: number): RouteEntry {
  return {
    destination: route.destination,
    gateway: route.via,
    linkIndex,
    onLink: route.onLink,
    protocol: podwireRouteProtocol,
    ...(route.metric === undefined ? {} : { metric: route.metric }),
  };
}
