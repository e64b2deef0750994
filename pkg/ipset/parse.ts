/** Reads what `ipset save` prints. */
import type { IpSetType, ObservedIpSet } from './ip-set.ts';

/** The sets whose name starts with `prefix`, by name. Lines that say something else are passed over. */
export function parseIpSetSave(text: string, prefix: string): Map<string, ObservedIpSet> {
  const sets = new Map<string, ObservedIpSet & { readonly members: Set<string> }>();
  for (const line of text.split('\n')) {
    const [verb, name = '', ...rest] = line.split(' ');
    if (!name.startsWith(prefix)) continue;
    if (verb === 'create') sets.set(name, setOf(name, rest));
    else if (verb === 'add') sets.get(name)?.members.add(rest[0] ?? '');
  }
  return sets;
}

function setOf(name: string, [type = '', ...options]: readonly string[]) {
  const option = (key: string): string | undefined => options[options.indexOf(key) + 1];
  const family = options.includes('family') ? option('family') : undefined;
  return {
    name,
    // Of a type that we never make, when somebody else made a set of this name: it is replaced.
    type: type as IpSetType,
    family:
      family === undefined ? undefined : family === 'inet6' ? ('ip6' as const) : ('ip' as const),
    maxMembers: options.includes('maxelem') ? Number(option('maxelem')) : undefined,
    members: new Set<string>(),
  };
}

/** How many members each set has, by name, from `ipset list -terse`. */
export function parseIpSetSizes(text: string): Map<string, number> {
  const sizes = new Map<string, number>();
  let name = '';
  for (const line of text.split('\n')) {
    const [, key, value = ''] = /^(Name|Number of entries): (.*)$/.exec(line) ?? [];
    if (key === 'Name') name = value;
    else if (key !== undefined) sizes.set(name, Number(value));
  }
  return sizes;
}
