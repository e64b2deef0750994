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
}

export interface Ruleset {
  readonly family: Family;
  /** In the order they are written. */
  readonly tables: readonly Table[];
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

const serviceChain = /^KUBE-(?:SVC|SVL|EXT|FW|SEP)-[A-Z2-7]{16}$/;

/** A chain of one Service port or endpoint: stale when nothing wants it. */
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
