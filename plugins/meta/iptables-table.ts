/** One table of iptables: read whole, changed by one atomic iptables-restore. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { Family } from '#pkg/ip/address.ts';
import { splitWords } from '#pkg/iptables/rule.ts';
import type { RunNetfilter } from './run-netfilter.ts';

/** The rules of each chain, in order, as iptables-save prints them after "-A CHAIN ". */
export type SavedTable = ReadonlyMap<string, readonly string[]>;

export interface IptablesTarget {
  readonly run: RunNetfilter;
  readonly family: Family;
  readonly table: 'nat' | 'filter';
}

/** Somebody else may change the table between reading and writing: kube-proxy, a person. */
const maxAttempts = 3;

/**
 * Reads the table and makes the changes that `plan` answers with: lines of iptables-restore, all
 * carried out or none. No lines change nothing.
 *
 * @throws {AgentError} CommandMissing, CommandFailed; what `plan` throws
 */
export function updateTable(
  target: IptablesTarget,
  plan: (saved: SavedTable) => readonly string[],
): void {
  for (let attempt = 1; ; attempt++) {
    const lines = plan(readTable(target));
    if (lines.length === 0) return;
    try {
      const input = [`*${target.table}`, ...lines, 'COMMIT', ''].join('\n');
      // Without --noflush it would be the whole table. -w: the lock of the old iptables.
      target.run(`${command(target.family)}-restore`, ['--noflush', '-w', '5'], input);
      return;
    } catch (error) {
      if (attempt === maxAttempts || !isErrno(error, 'CommandFailed')) throw error;
    }
  }
}

/** @throws {AgentError} CommandMissing, CommandFailed */
export function readTable({ run, family, table }: IptablesTarget): SavedTable {
  return parseSavedTable(run(`${command(family)}-save`, ['-t', table]), table);
}

/** Reads iptables-save's text. */
export function parseSavedTable(text: string, table: string): SavedTable {
  const chains = new Map<string, string[]>();
  let inTable = false;
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) inTable = line.slice(1) === table;
    if (!inTable) continue;
    const [, declared] = /^:(\S+) /.exec(line) ?? [];
    if (declared !== undefined) chains.set(declared, []);
    const [, chain, rule] = /^-A (\S+) ?(.*)$/.exec(line) ?? [];
    if (chain !== undefined && rule !== undefined) chains.get(chain)?.push(rule);
  }
  return chains;
}

/** The chain a rule jumps to; undefined for other targets' options, or none. */
export function jumpTarget(rule: string): string | undefined {
  const words = splitWords(rule);
  const at = words.findIndex((word) => word === '-j' || word === '-g');
  return at < 0 ? undefined : words[at + 1];
}

/** Lines that take away chains, and with them every rule that leads there. */
export function removeChains(saved: SavedTable, chains: ReadonlySet<string>): string[] {
  const jumps = [...saved].flatMap(([chain, rules]) =>
    chains.has(chain)
      ? []
      : rules.filter((rule) => leadsTo(rule, chains)).map((rule) => `-D ${chain} ${rule}`),
  );
  const present = [...chains].filter((chain) => saved.has(chain));
  return [...jumps, ...present.map((chain) => `-F ${chain}`), ...present.map((c) => `-X ${c}`)];
}

function leadsTo(rule: string, chains: ReadonlySet<string>): boolean {
  // Taking every rule of a large table apart would take longer than reading it.
  const mentioned = chains.values().some((chain) => rule.includes(chain));
  return mentioned && chains.has(jumpTarget(rule) ?? '');
}

/**
 * A line that makes the chain unless it is there. It fails on one that somebody has made since, so that
 * the table is read again; the other way of saying it, ":CHAIN - [0:0]", would empty that.
 */
export function ensureChain(saved: SavedTable, chain: string): string[] {
  return saved.has(chain) ? [] : [`-N ${chain}`];
}

/** A line that adds the rule, at the end or as the first, unless the chain has it. */
export function ensureRule(
  saved: SavedTable,
  chain: string,
  rule: string,
  where: 'first' | 'last' = 'last',
): string[] {
  if (saved.get(chain)?.includes(rule) === true) return [];
  return [where === 'last' ? `-A ${chain} ${rule}` : `-I ${chain} 1 ${rule}`];
}

/** A word of a rule as iptables-restore reads it back. */
export function quoteWord(word: string): string {
  return /^[\w.:/,!=+@%-]+$/.test(word) ? word : `"${word.replaceAll(/["\\]/g, '\\$&')}"`;
}

function command(family: Family): string {
  return family === 'ip' ? 'iptables' : 'ip6tables';
}
