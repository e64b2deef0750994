/** All that the kernel is to hold of one family in mode ipvs, compared with what it holds. Pure. */
import { roomFor, type IpSet, type ObservedIpSet } from '#pkg/ipset/ip-set.ts';
import { planIpSets } from '#pkg/ipset/plan.ts';
import { afterPlan, planIpvs, type Unwanted } from '#pkg/ipvs/plan.ts';
import { serverKey, type VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import type { IpvsBook } from '#pkg/proxy/ipvs-book.ts';
import type { IpvsSteps } from './ipvs-driver.ts';

/** What was found in the kernel. */
export interface IpvsFound {
  /** By serverKey(). */
  readonly servers: ReadonlyMap<string, VirtualServer>;
  readonly sets: ReadonlyMap<string, ObservedIpSet>;
  /** On the device for Services. */
  readonly addresses: ReadonlySet<string>;
}

export interface IpvsComparison {
  readonly steps: Pick<IpvsSteps, 'addresses' | 'servers' | 'sets'>;
  /** What is there after the steps: virtual servers, and how many members fit into each set. */
  readonly servers: Map<string, VirtualServer>;
  readonly room: Map<string, number>;
}

export interface Others {
  /** Whether an unwanted virtual server may be deleted. */
  readonly isOurs: (server: VirtualServer) => boolean;
  /** Nothing is taken away: the book is known not to have all. */
  readonly areKept: boolean;
}

export function compareAll(
  book: IpvsBook,
  found: IpvsFound,
  { areKept, isOurs }: Others,
): IpvsComparison {
  const wanted = book.servers();
  const sets = areKept ? book.sets().map((set) => withMembersOf(set, found.sets)) : book.sets();
  const addresses = book.addresses();
  const removed = [...found.addresses].filter((address) => !addresses.has(address));
  const unwanted = unwantedBeside(book, areKept ? () => false : isOurs);
  const servers = new Map(
    [...wanted].map(([key, server]) => [key, afterPlan(server, found.servers.get(key))]),
  );
  for (const [key, server] of found.servers) {
    if (!wanted.has(key)) keepLeaving(servers, server, unwanted);
  }
  return {
    steps: {
      servers: planIpvs(wanted, found.servers, unwanted),
      sets: planIpSets(sets, found.sets),
      addresses: {
        added: [...addresses].filter((address) => !found.addresses.has(address)),
        removed: areKept ? [] : removed,
      },
    },
    servers,
    room: new Map(
      sets.map(({ members, name }) => {
        const present = found.sets.get(name)?.maxMembers;
        const hasRoom = present !== undefined && present >= members.size;
        return [name, hasRoom ? present : roomFor(members.size)];
      }),
    ),
  };
}

/** A virtual server may empty while the book says that new connections there are refused. */
export function unwantedBeside(book: IpvsBook, isOurs: Unwanted['isOurs']): Unwanted {
  return { isOurs, mayEmpty: (server) => book.refuses(serverKey(server)) };
}

/** Keeps in mind what is left of a virtual server that is wanted no more. */
export function keepLeaving(
  have: Map<string, VirtualServer>,
  server: VirtualServer,
  { isOurs, mayEmpty }: Unwanted,
): void {
  const left = isOurs(server) && mayEmpty(server) ? afterPlan(undefined, server) : undefined;
  if (left === undefined) have.delete(serverKey(server));
  else have.set(serverKey(server), left);
}

function withMembersOf(set: IpSet, found: IpvsFound['sets']): IpSet {
  const present = found.get(set.name);
  const isLike = present?.type === set.type && present.family === set.family;
  return isLike ? { ...set, members: new Set([...set.members, ...present.members]) } : set;
}
