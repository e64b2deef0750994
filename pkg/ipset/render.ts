/** Steps and sets as text that `ipset restore` reads. */
import { temporaryName, type IpSet, type IpSetKind } from './ip-set.ts';
import type { IpSetStep } from './plan.ts';

/** The steps as one input; with `-exist` what is so already is no error. */
export function renderIpSetRestore(steps: readonly IpSetStep[]): string {
  return steps
    .flatMap(linesOf)
    .map((line) => `${line}\n`)
    .join('');
}

/** Sets as `ipset save` would print them, but for sizes and the order of members. */
export function renderIpSets(sets: readonly IpSet[]): string {
  return sets
    .flatMap((set) => [
      `create ${set.name} ${set.type}${familyOption(set)}`,
      ...[...set.members].toSorted().map((member) => `add ${set.name} ${member}`),
    ])
    .map((line) => `${line}\n`)
    .join('');
}

function linesOf(step: IpSetStep): string[] {
  switch (step.op) {
    case 'create':
      return [creation(step.set, step.set.name, step.maxMembers)];
    case 'add':
      return [`add ${step.set} ${step.member}`];
    case 'delete':
      return [`del ${step.set} ${step.member}`];
    case 'destroy':
      return [`destroy ${step.set}`];
    case 'replace': {
      const { name } = step.set;
      const other = temporaryName(name);
      return [
        creation(step.set, other, step.maxMembers),
        `flush ${other}`,
        ...step.members.map((member) => `add ${other} ${member}`),
        `swap ${other} ${name}`,
        `destroy ${other}`,
      ];
    }
  }
}

function creation(set: IpSetKind, name: string, maxMembers: number): string {
  if (set.type === 'bitmap:port') return `create ${name} bitmap:port range 0-65535`;
  return `create ${name} ${set.type}${familyOption(set)} maxelem ${maxMembers}`;
}

function familyOption({ family }: IpSetKind): string {
  if (family === undefined) return '';
  return ` family ${family === 'ip' ? 'inet' : 'inet6'}`;
}
