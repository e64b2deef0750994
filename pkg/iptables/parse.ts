/** Reads what `iptables-save` prints; keeps what belongs to one family of chains. */
import { atOnce, type Parts } from '#pkg/reconcile/parts.ts';
import {
  isKubeChain,
  targetOf,
  type ObservedTable,
  type Rules,
  type TableName,
} from './ruleset.ts';

/** Whether a chain of this name is of the family that is read. */
export type IsOurChain = (name: string) => boolean;

/** One table out of iptables-save's text, empty when the text does not have it. */
export function parseSave(
  text: string,
  name: TableName,
  isOurs: IsOurChain = isKubeChain,
): ObservedTable {
  return atOnce(parseInParts(text, name, isOurs));
}

/** The same, for who has other things to do: 20,000 Services take half a second. */
export function* parseInParts(
  text: string,
  name: TableName,
  isOurs: IsOurChain = isKubeChain,
): Parts<ObservedTable> {
  const chains = new Map<string, string[]>();
  const jumps = new Map<string, string[]>();
  const builtIn = new Set<string>();
  const pinned = new Set<string>();
  let lines = 0;
  for (const line of linesOfTable(text, name)) {
    lines += 1;
    if (lines % linesPerPart === 0) yield;
    if (line.startsWith(':')) {
      const [chain = '', policy] = line.slice(1).split(' ');
      if (policy !== '-') builtIn.add(chain);
      else if (isOurs(chain)) chains.set(chain, []);
      continue;
    }
    const [, chain = '', rule = ''] = /^-A (\S+) ?(.*)$/.exec(line) ?? [];
    const own = chains.get(chain);
    if (own !== undefined) {
      own.push(rule);
      continue;
    }
    const target = targetOf(rule);
    if (target === undefined || !isOurs(target)) continue;
    pinned.add(target);
    if (!builtIn.has(chain)) continue;
    const ofChain: string[] | undefined = jumps.get(chain);
    if (ofChain === undefined) jumps.set(chain, [rule]);
    else ofChain.push(rule);
  }
  return { name, chains: new Map<string, Rules>(chains), jumps, pinned };
}

const linesPerPart = 100;

function* linesOfTable(text: string, name: TableName): Iterable<string> {
  let inTable = false;
  for (let at = 0; at < text.length;) {
    const end = text.indexOf('\n', at);
    const line = text.slice(at, end < 0 ? undefined : end);
    at = end < 0 ? text.length : end + 1;
    if (line.startsWith('*')) inTable = line.slice(1) === name;
    else if (inTable && (line.startsWith(':') || line.startsWith('-A '))) yield line;
  }
}
