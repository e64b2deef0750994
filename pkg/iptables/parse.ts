/** Reads what `iptables-save` prints; keeps what belongs to the KUBE- family. */
import {
  isKubeChain,
  targetOf,
  type ObservedTable,
  type Rules,
  type TableName,
} from './ruleset.ts';

/** One table out of iptables-save's text, empty when the text does not have it. */
export function parseSave(text: string, name: TableName): ObservedTable {
  const chains = new Map<string, string[]>();
  const jumps = new Map<string, string[]>();
  const builtIn = new Set<string>();
  const pinned = new Set<string>();
  for (const line of linesOfTable(text, name)) {
    if (line.startsWith(':')) {
      const [chain = '', policy] = line.slice(1).split(' ');
      if (policy !== '-') builtIn.add(chain);
      else if (isKubeChain(chain)) chains.set(chain, []);
      continue;
    }
    const [, chain = '', rule = ''] = /^-A (\S+) ?(.*)$/.exec(line) ?? [];
    const own = chains.get(chain);
    if (own !== undefined) {
      own.push(rule);
      continue;
    }
    const target = targetOf(rule);
    if (target === undefined || !isKubeChain(target)) continue;
    pinned.add(target);
    if (!builtIn.has(chain)) continue;
    const ofChain: string[] | undefined = jumps.get(chain);
    if (ofChain === undefined) jumps.set(chain, [rule]);
    else ofChain.push(rule);
  }
  return { name, chains: new Map<string, Rules>(chains), jumps, pinned };
}

function* linesOfTable(text: string, name: TableName): Iterable<string> {
  let inTable = false;
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) inTable = line.slice(1) === name;
    else if (inTable && (line.startsWith(':') || line.startsWith('-A '))) yield line;
  }
}
