/**
 * What one family's iptables should hold, as data. Chains are ours as a whole; in built-in chains
 * only single rules are, the jumps that lead into our chains.
 */
import type { Family } from '#pkg/ip/address.ts';

export type TableName = 'filter' | 'nat' | 'mangle';

/** Rules without their "-A CHAIN", in the text form of `rule.ts`. */
export type Rules = readonly string[];

export interface Table {
  readonly name: TableName;
  readonly chains: ReadonlyMap<string, Rules>;
  /** Per built-in chain, our rules in the order they stand in, at the head of the chain. */
  readonly jumps: ReadonlyMap<string, Rules>;
  /** As `jumps`, at the end of the chain: what lets pass must not come before what others drop. */
  readonly tails?: ReadonlyMap<string, Rules>;
  /**
   * Chains whose rules exclude each other, so that one can go and one can come without the others
   * being written, and how many rules must stand last in them all the same.
   */
  readonly unordered?: ReadonlyMap<string, number>;
}

export interface Ruleset {
  readonly family: Family;
  /** In the order they are written. */
  readonly tables: readonly Table[];
}

/** What became different in a table, told by who made it so: nothing else was looked at. */
export interface TableChange {
  readonly name: TableName;
  /** Chains with other rules than before, or new ones. */
  readonly put: ReadonlyMap<string, Rules>;
  /** Chains nobody wants any more. */
  readonly gone: ReadonlySet<string>;
  /** Single rules that went from and came to unordered chains. */
  readonly edits: ReadonlyMap<string, RuleEdit>;
}

export interface RuleEdit {
  readonly remove: Rules;
  readonly insert: Rules;
}

/** A table as read from the kernel: chains of the KUBE- family and jumps to them. */
export interface ObservedTable extends Table {
  /** Chains of ours that rules of others jump to: the kernel refuses to delete these. */
  readonly pinned: ReadonlySet<string>;
}

export interface ObservedRuleset {
  readonly family: Family;
  readonly tables: readonly ObservedTable[];
}

/**
 * Whether a chain name belongs to kube-proxy's family, which we share with the kubelet and with
 * other modes of kube-proxy. We write only chains we want and delete only {@link isServiceChain}.
 */
export function isKubeChain(name: string): boolean {
  return name.startsWith('KUBE-');
}

/** KUBE-SVT- are the chains of the layout `tree` (`pkg/proxy/address-tree.ts`). */
const serviceChain = /^KUBE-(?:(?:SVC|SVL|EXT|FW|SEP)-[A-Z2-7]{16}|SVT-[0-9A-Z./]+)$/;

/** A chain that is there for some Services or endpoints only: stale when nothing wants it. */
export function isServiceChain(name: string): boolean {
  return serviceChain.test(name);
}

/** The chain a rule jumps or goes to, or its target; undefined for a rule that only counts. */
export function targetOf(rule: string): string | undefined {
  return /(?:^| )-[jg] (\S+)/.exec(withoutQuoted(rule))?.[1];
}

function withoutQuoted(rule: string): string {
  return rule.includes('"') ? rule.replace(/"(?:[^"\\]|\\.)*"/g, '""') : rule;
}
