/** The difference between wanted and present sets, as steps that can be printed and applied. */
import {
  roomFor,
  temporaryName,
  type IpSet,
  type IpSetKind,
  type ObservedIpSet,
} from './ip-set.ts';

export type IpSetStep =
  | { readonly op: 'create'; readonly set: IpSetKind; readonly maxMembers: number }
  | { readonly op: 'add' | 'delete'; readonly set: string; readonly member: string }
  /** Makes a set anew beside the old one and exchanges them: rules see one or the other. */
  | {
      readonly op: 'replace';
      readonly set: IpSetKind;
      readonly maxMembers: number;
      readonly members: readonly string[];
    }
  | { readonly op: 'destroy'; readonly set: string };

/** Members that came to and went from a set. */
export interface MemberChange {
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

/**
 * Steps that turn `have` into `want`. Sets that nobody wants are left: rules may still match them,
 * but not those that were being filled by a process that was killed then.
 */
export function planIpSets(
  want: readonly IpSet[],
  have: ReadonlyMap<string, ObservedIpSet>,
): IpSetStep[] {
  const unfinished = new Set(
    want.map(({ name }) => temporaryName(name)).filter((n) => have.has(n)),
  );
  const steps = want.flatMap((set): IpSetStep[] => {
    const present = have.get(set.name);
    const maxMembers = roomFor(set.members.size);
    const isOther = present !== undefined && !sameKind(set, present);
    if (present === undefined || isOther) {
      const adds = [...set.members].map((member) => addition(set.name, member));
      const create: IpSetStep = { op: 'create', set: kindOf(set), maxMembers };
      // The kernel exchanges like for like only, and says so if a rule is in the way.
      return [...(isOther ? [destruction(set.name)] : []), create, ...adds];
    }
    if (lacksRoom(set.members.size, present)) {
      return [{ op: 'replace', set: kindOf(set), maxMembers, members: [...set.members] }];
    }
    return [
      // Deletions first: a full set takes nothing.
      ...[...present.members].filter((m) => !set.members.has(m)).map((m) => deletion(set.name, m)),
      ...[...set.members].filter((m) => !present.members.has(m)).map((m) => addition(set.name, m)),
    ];
  });
  return [...[...unfinished].map(destruction), ...steps];
}

/**
 * Steps for members that are known to have changed, nothing else being looked at. Undefined when a
 * set has no room for them: then it must be made anew, from all of its members.
 */
export function planMembers(
  changes: ReadonlyMap<string, MemberChange>,
  sets: ReadonlyMap<string, { readonly size: number; readonly room: number }>,
): IpSetStep[] | undefined {
  const steps: IpSetStep[] = [];
  for (const [name, { added, removed }] of changes) {
    const set = sets.get(name);
    if (set === undefined || set.size > set.room) return undefined;
    // Deletions first: a full set takes nothing.
    steps.push(...removed.map((member) => deletion(name, member)));
    steps.push(...added.map((member) => addition(name, member)));
  }
  return steps;
}

function addition(set: string, member: string): IpSetStep {
  return { op: 'add', set, member };
}

function deletion(set: string, member: string): IpSetStep {
  return { op: 'delete', set, member };
}

function destruction(set: string): IpSetStep {
  return { op: 'destroy', set };
}

function kindOf({ family, name, type }: IpSet): IpSetKind {
  return { name, type, family };
}

function sameKind(a: IpSetKind, b: IpSetKind): boolean {
  return a.type === b.type && a.family === b.family;
}

function lacksRoom(members: number, { maxMembers }: ObservedIpSet): boolean {
  return maxMembers !== undefined && members > maxMembers;
}
