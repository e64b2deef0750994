/**
 * The noun of this vocabulary: nftables tables as data. Structure (chains, rules, declarations of
 * sets and maps) is text in nft's own words; elements are data, since they are what changes.
 */
import { createHash } from 'node:crypto';

export type TableFamily = 'ip' | 'ip6' | 'inet' | 'netdev' | 'bridge';

/** Everything one feature wants: whole tables that are its own. */
export interface Ruleset {
  readonly tables: readonly Table[];
}

export interface TableName {
  readonly family: TableFamily;
  readonly name: string;
}

export interface Table extends TableName {
  /** Shown by `nft list`. At most 100 bytes, no quotes. */
  readonly comment?: string;
  readonly sets: readonly ElementSet[];
  readonly maps: readonly ElementMap[];
  readonly chains: readonly Chain[];
}

/** A named set. Elements are canonical nft text: "10.0.0.0/8", "10.0.0.1 . tcp . 80". */
export interface ElementSet {
  readonly name: string;
  /** nft's type of an element: "ipv4_addr", "ipv4_addr . inet_proto . inet_service". */
  readonly type: string;
  /** Elements may be ranges. Keep these small: each change costs by their number. */
  readonly interval: boolean;
  readonly elements: ReadonlySet<string>;
  readonly declaration?: SetDeclaration;
}

/** A named map or verdict map. */
export interface ElementMap {
  readonly name: string;
  readonly type: string;
  /** nft's type of a value: "ipv4_addr . inet_service", "verdict". */
  readonly valueType: string;
  readonly interval: boolean;
  /** Key to value, both canonical: "10.0.0.1 . tcp . 80" → "goto web", "10.1.1.1 . 8080". */
  readonly elements: ReadonlyMap<string, string>;
  readonly declaration?: SetDeclaration;
}

/** What few sets need to say of themselves. */
export interface SetDeclaration {
  /**
   * Expressions that have the set's type, for types without a name of their own
   * ("numgen random mod 2"): "ip daddr . th dport", a map's with " : " and the value's.
   */
  readonly typeof?: string;
  /** Rules add elements, which go by themselves when their time is over. */
  readonly dynamic?: { readonly size: number };
  /** Each element counts the packets that meet it. */
  readonly counter?: boolean;
}

export interface Chain {
  readonly name: string;
  /** Where the kernel enters it; undefined for a chain that is only jumped to. */
  readonly base?: BaseChain;
  readonly rules: readonly Rule[];
}

export interface BaseChain {
  readonly type: 'filter' | 'nat' | 'route';
  readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting' | 'ingress';
  readonly priority: number;
  readonly policy: 'accept' | 'drop';
}

export interface Rule {
  /** One rule in nft's words, without a comment. */
  readonly text: string;
  /** Why it is there, for who lists the table. At most 100 bytes, no quotes. */
  readonly why: string;
}

/** A table as the kernel has it. Rules are known by their {@link ruleMark}. */
export interface ObservedTable extends TableName {
  readonly sets: readonly ElementSet[];
  readonly maps: readonly ElementMap[];
  readonly chains: readonly ObservedChain[];
}

export interface ObservedChain {
  readonly name: string;
  readonly base?: BaseChain;
  /** A rule without a mark of ours is `''`. */
  readonly ruleMarks: readonly string[];
}

/**
 * Ends the comment of each rule we write. The kernel gives a rule back in other words than it was
 * given, so a rule is recognised by a digest of the words it was made from.
 */
export function ruleMark(rule: Rule): string {
  return `#${createHash('sha256').update(`${rule.text}\n${rule.why}`).digest('hex').slice(0, 10)}`;
}

/** The table as `observe` will find it once it is applied. */
export function observedOf(table: Table): ObservedTable {
  return {
    ...table,
    chains: table.chains.map(({ name, base, rules }) => ({
      name,
      ...(base === undefined ? {} : { base }),
      ruleMarks: rules.map(ruleMark),
    })),
  };
}

/** Tables of two families may have one name. */
export function sameTable(a: TableName, b: TableName): boolean {
  return a.family === b.family && a.name === b.name;
}
