/**
 * From what the table has to what it should have: the plan of a start, of a repair and of
 * `diff`. Small changes afterwards are `ElementBook.put` alone.
 */
import type { ElementStep } from '#pkg/nftables/plan.ts';
import { elementText } from '#pkg/nftables/plan.ts';
import { Changes, type ElementBook, type ElementChange } from './nftables-book.ts';
import { frontendKeys } from './nftables-elements.ts';
import { proxySetNames, proxyTableName } from './nftables-sets.ts';
import type { ProxiedPort } from './proxied-port.ts';

/** Elements by set: key to value, '' in sets. */
export type SetContents = ReadonlyMap<string, ReadonlyMap<string, string>>;

/** Ports by their key, which may be looked at through what is left out. */
export interface PortSource {
  get(key: string): ProxiedPort | undefined;
  keys(): Iterable<string>;
}

/** Sets that must change together: a Service with a firewall and no ranges yet would be closed. */
const firewallSets: ReadonlySet<string> = new Set([
  'firewalled-services',
  'source-ranges',
  'barred-services',
]);

/**
 * Fills an empty book and yields what differs, in units of which each must be one transaction; any
 * number of units may share one. Every step in between is a table that serves: what goes is deleted
 * last. Yields empty units while it only computes, so that the caller can let others have a turn.
 *
 * @param left what the table has; taken apart on the way
 */
export function* reconcile(
  book: ElementBook,
  ports: PortSource,
  left: ReadonlyMap<string, Map<string, string>>,
): Generator<readonly ElementChange[], void, undefined> {
  const missing = (changes: readonly ElementChange[]): ElementChange[] =>
    changes.flatMap((change) => {
      const elements = left.get(change.set);
      const old = elements?.get(change.key);
      elements?.delete(change.key);
      return old === change.new ? [] : [{ ...change, old }];
    });
  const units: ElementChange[][] = [missing(book.common())];
  const firewall: ElementChange[] = [];
  const take = (changes: readonly ElementChange[]): void => {
    const unit: ElementChange[] = [];
    for (const change of missing(changes)) {
      (firewallSets.has(change.set) ? firewall : unit).push(change);
    }
    if (unit.length > 0) units.push(unit);
  };
  const keys = [...ports.keys()].toSorted();
  yield [];
  const contested = yield* contestants(keys, ports);
  // Together, since one takes a frontend from another.
  const ofContested = new Changes();
  for (const key of contested) {
    for (const change of book.put(key, ports.get(key))) ofContested.put(change);
    yield [];
  }
  take(ofContested.list());
  for (const key of keys) {
    if (contested.has(key)) continue;
    take(book.put(key, ports.get(key)));
    yield [];
  }
  yield [...[...firewallSets].flatMap((set) => leftIn(set, left)), ...firewall];
  yield* units;
  for (const set of proxySetNames) {
    if (firewallSets.has(set)) continue;
    for (const [key, old] of left.get(set) ?? []) yield [{ set, key, old, new: undefined }];
  }
}

/** The changes as steps, which print as nft text. Deletions first: a key has one value. */
export function elementSteps(
  family: 'ip' | 'ip6',
  changes: readonly ElementChange[],
): readonly ElementStep[] {
  const table = { family, name: proxyTableName };
  const bySet = new Map<string, { deletes: string[]; adds: string[] }>();
  for (const change of changes) {
    let lists = bySet.get(change.set);
    if (lists === undefined) bySet.set(change.set, (lists = { deletes: [], adds: [] }));
    if (change.old !== undefined) lists.deletes.push(change.key);
    if (change.new !== undefined) {
      lists.adds.push(elementText(change.key, change.new === '' ? undefined : change.new));
    }
  }
  const steps: ElementStep[] = [];
  for (const [set, { deletes }] of bySet) {
    if (deletes.length > 0) steps.push({ op: 'deleteElements', table, set, elements: deletes });
  }
  for (const [set, { adds }] of bySet) {
    if (adds.length > 0) steps.push({ op: 'addElements', table, set, elements: adds });
  }
  return steps;
}

/** Ports that want what another wants. Yields nothing but turns for others. */
function* contestants(
  keys: readonly string[],
  ports: PortSource,
): Generator<readonly ElementChange[], ReadonlySet<string>, undefined> {
  const first = new Map<string, string>();
  const found = new Set<string>();
  for (const key of keys) {
    const port = ports.get(key);
    for (const frontend of port === undefined ? [] : frontendKeys(port)) {
      const other = first.get(frontend);
      if (other === undefined) first.set(frontend, key);
      else found.add(other).add(key);
    }
    yield [];
  }
  return found;
}

function leftIn(
  set: string,
  left: ReadonlyMap<string, ReadonlyMap<string, string>>,
): ElementChange[] {
  const known = proxySetNames.find((name) => name === set);
  if (known === undefined) return [];
  return [...(left.get(set) ?? [])].map(([key, old]) => {
    return { set: known, key, old, new: undefined };
  });
}
