/** The difference between wanted and present virtual servers, as steps that can be printed. */
import { passesByLeaving } from './scheduler-flags.ts';
import { endpointText, type RealServer, type VirtualServer } from './virtual-server.ts';

export type IpvsStep =
  | { readonly op: 'add-server' | 'edit-server'; readonly server: VirtualServer }
  | { readonly op: 'delete-server'; readonly key: string }
  | {
      readonly op: 'add-real' | 'edit-real';
      readonly key: string;
      readonly real: RealServer;
    }
  | { readonly op: 'delete-real'; readonly key: string; readonly real: RealServer };

/** By {@link serverKey}. */
export type VirtualServers = ReadonlyMap<string, VirtualServer>;

export interface IpvsPlan {
  /** To be done before packet filters send traffic here. */
  readonly puts: readonly IpvsStep[];
  /** To be done when nothing leads here any more. */
  readonly deletions: readonly IpvsStep[];
}

export interface Unwanted {
  /** Whether an unwanted virtual server may be deleted. */
  readonly isOurs: (server: VirtualServer) => boolean;
  /** Whether its connections may end first: new ones must be kept away by other means. */
  readonly mayEmpty: (server: VirtualServer) => boolean;
}

/**
 * Steps that turn `have` into `want`. A real server that is no longer wanted gets weight 0 and stays
 * while it has connections, but for UDP, which has none to end, and where the scheduler would refuse
 * new ones meanwhile: the kernel is the memory of who is leaving, also across restarts. So do all of a
 * virtual server that may empty.
 */
export function planIpvs(
  want: VirtualServers,
  have: VirtualServers,
  { isOurs, mayEmpty }: Unwanted,
): IpvsPlan {
  const puts: IpvsStep[] = [];
  const deletions: IpvsStep[] = [];
  for (const [key, server] of want) {
    const present = have.get(key);
    if (present === undefined) puts.push({ op: 'add-server', server });
    else if (!sameSettings(server, present)) puts.push({ op: 'edit-server', server });
    const steps = planReals(key, server, present?.realServers ?? []);
    puts.push(...steps.puts);
    deletions.push(...steps.deletions);
  }
  for (const [key, server] of have) {
    if (want.has(key) || !isOurs(server)) continue;
    const left = mayEmpty(server) ? afterPlan(undefined, server) : undefined;
    if (left === undefined) deletions.push({ op: 'delete-server', key });
    else puts.push(...planReals(key, left, server.realServers).puts);
  }
  return { puts, deletions };
}

/**
 * What the kernel holds after the steps from `have` to `want`, for one virtual server: of one that is
 * wanted no more and may empty, what is left until its connections have ended.
 */
export function afterPlan(want: VirtualServer, have: VirtualServer | undefined): VirtualServer;
export function afterPlan(
  want: VirtualServer | undefined,
  have: VirtualServer | undefined,
): VirtualServer | undefined;
export function afterPlan(
  want: VirtualServer | undefined,
  have: VirtualServer | undefined,
): VirtualServer | undefined {
  if (want === undefined) {
    if (have === undefined || have.protocol === 'udp' || have.realServers.length === 0)
      return undefined;
    return { ...have, realServers: have.realServers.map((real) => ({ ...real, weight: 0 })) };
  }
  const wanted = new Set(want.realServers.map(endpointText));
  if (!lingers(want)) return want;
  const leaving = (have?.realServers ?? [])
    .filter((real) => !wanted.has(endpointText(real)))
    .map((real) => ({ ...real, weight: 0 }));
  return leaving.length === 0 ? want : { ...want, realServers: [...want.realServers, ...leaving] };
}

function planReals(key: string, want: VirtualServer, have: readonly RealServer[]): IpvsPlan {
  const puts: IpvsStep[] = [];
  const deletions: IpvsStep[] = [];
  const present = new Map(have.map((real) => [endpointText(real), real]));
  const wanted = new Set<string>();
  for (const real of want.realServers) {
    const text = endpointText(real);
    wanted.add(text);
    const there = present.get(text);
    if (there === undefined) puts.push({ op: 'add-real', key, real });
    else if (there.weight !== real.weight || there.foreign !== undefined) {
      puts.push({ op: 'edit-real', key, real });
    }
  }
  for (const [text, real] of present) {
    if (wanted.has(text)) continue;
    if (!lingers(want)) deletions.push({ op: 'delete-real', key, real });
    else if (real.weight !== 0) puts.push({ op: 'edit-real', key, real: { ...real, weight: 0 } });
  }
  return { puts, deletions };
}

/** Whether who leaves it stays while it has connections. */
function lingers(server: VirtualServer): boolean {
  return server.protocol !== 'udp' && passesByLeaving(server);
}

function sameSettings(a: VirtualServer, b: VirtualServer): boolean {
  return (
    a.scheduler === b.scheduler &&
    a.flags === b.flags &&
    a.persistenceSeconds === b.persistenceSeconds &&
    a.foreign === b.foreign
  );
}
