/** What has to be done so that the kernel has what is wanted. Pure. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { excludes, isDevice, sameMould, type Device } from './device.ts';
import { describeObject, objectKey, objectLink, sameObject, type HostObject } from './object.ts';
import type { PutStep, Step } from './step.ts';

/**
 * The steps from `have` to `want`, in an order that can be carried out: devices that are in the way
 * go first; then come new things, each after what it needs; what is no longer wanted goes last, so
 * that a packet finds either the old way or the new one. Empty when nothing is to be done.
 *
 * @throws {AgentError} DuplicateObject when two wanted objects exclude each other
 */
export function planHostNetwork(
  want: readonly HostObject[],
  have: readonly HostObject[],
): readonly Step[] {
  const wanted = indexWanted(want);
  const observed = groupByKey(have);
  const fate = linkFate(wanted, have);
  const puts: PutStep[] = [];
  for (const [key, object] of wanted) {
    const there = observed.get(key);
    const exist = there === undefined ? nothing : there.filter((one) => !fate.losesFirst(one));
    const step = planPut(object, exist);
    if (step !== undefined) puts.push(step);
  }
  const unwanted: HostObject[] = [];
  for (const [key, objects] of observed) {
    const object = wanted.get(key);
    for (const there of objects) {
      const staysWithUs = there.kind === 'sysctl';
      if (staysWithUs || fate.goesWithLink(there) || isReplaced(there, object, objects)) continue;
      unwanted.push(there);
    }
  }
  return [
    ...fate.deletedFirst.map(deletion),
    ...inRanks(puts, ({ object }) => object),
    ...inRanks(unwanted, (object) => object, 'reversed').map(deletion),
  ];
}

const nothing: readonly HostObject[] = [];

function indexWanted(want: readonly HostObject[]): ReadonlyMap<string, HostObject> {
  const wanted = new Map<string, HostObject>();
  for (const object of want) {
    const key = objectKey(object);
    const twin = wanted.get(key);
    if (twin !== undefined) {
      throw new AgentError(
        'DuplicateObject',
        `Cannot plan the host network: both ${describeObject(twin)} and ${describeObject(object)} are wanted`,
      );
    }
    wanted.set(key, object);
  }
  return wanted;
}

/** More than one object has a key where somebody added a second next hop to a route of ours. */
function groupByKey(have: readonly HostObject[]): ReadonlyMap<string, readonly HostObject[]> {
  const groups = new Map<string, HostObject[]>();
  for (const object of have) {
    const key = objectKey(object);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [object]);
    else group.push(object);
  }
  return groups;
}

function planPut(object: HostObject, exist: readonly HostObject[]): PutStep | undefined {
  const [first] = exist;
  if (first === undefined) return { op: 'put', object, replaces: undefined };
  if (exist.length === 1 && sameObject(object, first)) return undefined;
  const absentAndNotNeeded =
    object.kind === 'sysctl' &&
    object.optional &&
    first.kind === 'sysctl' &&
    first.missing === true;
  return absentAndNotNeeded ? undefined : { op: 'put', object, replaces: first };
}

/** Whether an observed object needs no deletion, because the wanted one is it or overwrites it. */
function isReplaced(
  there: HostObject,
  object: HostObject | undefined,
  group: readonly HostObject[],
): boolean {
  return object !== undefined && (there === group[0] || sameObject(there, object));
}

interface LinkFate {
  /** Our devices that are in the way of wanted ones. */
  readonly deletedFirst: readonly Device[];
  /** Whether the object will be gone before anything is put. */
  losesFirst(object: HostObject): boolean;
  /** Whether the kernel deletes the object for us, together with its link. */
  goesWithLink(object: HostObject): boolean;
}

function linkFate(wanted: ReadonlyMap<string, HostObject>, have: readonly HostObject[]): LinkFate {
  const created = [...wanted.values()].filter(isDevice);
  const deletedFirst: Device[] = [];
  const deleted = new Set<string>();
  const first = new Set<string>();
  const readdressed = new Set<string>();
  for (const there of have) {
    if (!isDevice(there)) continue;
    const object = wanted.get(objectKey(there));
    if (object !== undefined && isDevice(object) && sameMould(object, there)) {
      if (macOf(object) !== macOf(there)) readdressed.add(there.link);
      continue;
    }
    deleted.add(there.link);
    if (object === undefined && !created.some((link) => excludes(link, there))) continue;
    deletedFirst.push(there);
    first.add(there.link);
  }
  return {
    deletedFirst,
    losesFirst(object) {
      const link = objectLink(object);
      if (link === undefined) return false;
      // A device that gets another MAC address loses its neighbours, permanent ones too
      // (net/core/neighbour.c, neigh_changeaddr).
      return first.has(link) || (object.kind === 'neighbor' && readdressed.has(link));
    },
    goesWithLink(object) {
      const link = objectLink(object);
      if (link === undefined || !deleted.has(link)) return false;
      return !isDevice(object) || first.has(link);
    },
  };
}

function macOf(device: Device): string | undefined {
  return device.kind === 'vxlan' ? device.mac : undefined;
}

function deletion(object: HostObject): Step {
  return { op: 'delete', object };
}

/** In the order of putting; deletions run the other way. Of one rank in the order given. */
function inRanks<T>(
  items: readonly T[],
  objectOf: (item: T) => HostObject,
  order?: 'reversed',
): readonly T[] {
  const groups: T[][] = Array.from({ length: 1 + Math.max(...Object.values(ranks)) }, () => []);
  for (const item of items) groups[ranks[objectOf(item).kind]]?.push(item);
  return (order === 'reversed' ? groups.toReversed() : groups).flat();
}

/** What a route's first packet needs is there before the route. */
const ranks: Readonly<Record<HostObject['kind'], number>> = {
  vxlan: 0,
  tunnel: 0,
  wireguard: 0,
  tun: 0,
  // Before addresses, which a device may have turned off.
  sysctl: 1,
  address: 2,
  neighbor: 3,
  fdb: 4,
  'wireguard-peer': 4,
  route: 5,
};
