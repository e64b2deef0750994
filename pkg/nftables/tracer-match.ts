/** One rule against one packet: does it match, and what does it do. Reads the rule's own text. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parseAddress } from '#pkg/ip/address.ts';
import { containsAddress, tryParsePrefix } from '#pkg/ip/prefix.ts';
import type { Table } from './ruleset.ts';

/** A packet on its way. */
export interface PacketState {
  readonly source: string;
  readonly destination: string;
  readonly protocol: string;
  readonly port: number;
  readonly inInterface: string;
  readonly connection: 'new' | 'established';
  /** What the client asked for, once the destination was translated. */
  readonly original: { readonly destination: string; readonly port: number } | undefined;
  readonly mark: number;
  readonly masqueraded: boolean;
  readonly verdict: 'accept' | 'drop' | 'reject' | undefined;
  readonly isLocal: (address: string) => boolean;
  readonly trail: readonly string[];
}

/** One of the things a rule can do. */
export interface RuleResult {
  readonly state: PacketState;
  readonly matched: boolean;
  readonly next?: { readonly chain: string; readonly returns: boolean };
}

/**
 * Every result the rule can have: several when it chooses at random.
 *
 * @throws {AgentError} UnknownRule for words the tracer does not know: a guess would make its answer
 *   worthless
 */
export function matchRule(text: string, state: PacketState, table: Table): RuleResult[] {
  const reader = new Reader(text);
  let now = state;
  while (!reader.isDone) {
    const statement = actionOf(reader, now, table);
    if (statement !== undefined) {
      if ('results' in statement) return statement.results;
      now = statement.state;
      continue;
    }
    const verdict = matches(reader, now, table);
    if (verdict === false) return [{ state, matched: false }];
    if (verdict !== true) return [{ state: now, matched: true, ...verdict }];
  }
  return [{ state: now, matched: true }];
}

type Action = { readonly state: PacketState } | { readonly results: RuleResult[] };

/** What changes the packet or decides about it; undefined when the next words are a match. */
function actionOf(reader: Reader, state: PacketState, table: Table): Action | undefined {
  const end = (verdict: PacketState['verdict']): Action => ({
    results: [{ state: { ...state, verdict }, matched: true }],
  });
  if (reader.takes('drop')) return end('drop');
  if (reader.takes('accept')) return end('accept');
  if (reader.takes('reject')) return end('reject');
  for (const word of ['jump', 'goto']) {
    if (!reader.takes(word)) continue;
    const next = { chain: reader.word(), returns: word === 'jump' };
    return { results: [{ state, matched: true, next }] };
  }
  if (reader.takes('masquerade fully-random')) {
    return {
      results: [{ state: { ...state, masqueraded: true, verdict: 'accept' }, matched: true }],
    };
  }
  if (reader.takes('meta mark set meta mark')) {
    const or = reader.takes('or');
    if (!or) reader.expect('xor');
    const bits = Number(reader.word());
    return { state: { ...state, mark: (or ? state.mark | bits : state.mark ^ bits) >>> 0 } };
  }
  if (reader.takes('dnat')) {
    reader.word();
    reader.expect('to');
    return { results: translations(reader, state, table) };
  }
  // What it fills is not known to a tracer: clients are taken as new.
  if (reader.takes('update')) return { results: [{ state, matched: true }] };
  return undefined;
}

/** An endpoint for each key of the map that may come up; and going on, if one may find none. */
function translations(reader: Reader, state: PacketState, table: Table): RuleResult[] {
  const keys = concatenation(reader, state);
  reader.expect('map');
  const name = reader.word().slice(1);
  const map = table.maps.find((m) => m.name === name);
  if (map === undefined) throw unknown(reader);
  const targets = keys.map((key) => map.elements.get(key));
  const found = [...new Set(targets)].flatMap((target): RuleResult[] => {
    if (target === undefined) return [];
    const [destination = '', port = ''] = target.split(' . ');
    const original = { destination: state.destination, port: state.port };
    const moved = {
      ...state,
      destination,
      port: Number(port),
      original,
      verdict: 'accept' as const,
    };
    return [{ state: moved, matched: true }];
  });
  return targets.includes(undefined) ? [...found, { state, matched: false }] : found;
}

/** Whether a match holds; or where a verdict map leads. */
function matches(
  reader: Reader,
  state: PacketState,
  table: Table,
): boolean | Required<Pick<RuleResult, 'next'>> {
  if (reader.takes('ct state')) return reader.word() === state.connection;
  if (reader.takes('ct status dnat')) return state.original !== undefined;
  if (reader.takes('fib saddr type local')) return state.isLocal(state.source);
  if (reader.takes('fib daddr type local')) return state.isLocal(state.destination);
  if (reader.takes('meta mark and')) {
    const bits = Number(reader.word());
    reader.expect('!= 0');
    return (state.mark & bits) !== 0;
  }
  const keys = concatenation(reader, state);
  const [key = ''] = keys;
  if (reader.takes('vmap')) {
    const name = reader.word().slice(1);
    const verdict = table.maps.find((m) => m.name === name)?.elements.get(key);
    if (verdict === undefined) return false;
    const [, word, chain = ''] = /^(goto|jump) (.+)$/.exec(verdict) ?? [];
    if (word === undefined) throw unknown(reader);
    return { next: { chain, returns: word === 'jump' } };
  }
  const negated = reader.takes('!=');
  return matchesOperand(reader, key, table) !== negated;
}

/** A set, a list in braces, or one value. */
function matchesOperand(reader: Reader, key: string, table: Table): boolean {
  if (reader.takes('{')) {
    const words: string[] = [];
    while (!reader.takes('}')) words.push(reader.word().replace(/,$/, ''));
    return words.some((word) => covers(word, key));
  }
  const word = reader.word();
  if (!word.startsWith('@')) return covers(word, key);
  const set = table.sets.find(({ name }) => name === word.slice(1));
  if (set === undefined) throw unknown(reader);
  if (!set.interval) return set.elements.has(key);
  return [...set.elements].some((element) => {
    const fields = key.split(' . ');
    return element.split(' . ').every((field, i) => covers(field, fields[i] ?? ''));
  });
}

/** "10.0.0.0/8" covers "10.1.2.3", "\"cali*\"" covers "cali123". */
function covers(word: string, value: string): boolean {
  const quoted = /^"(.*)"$/.exec(word)?.[1];
  if (quoted !== undefined) {
    return quoted.endsWith('*') ? value.startsWith(quoted.slice(0, -1)) : value === quoted;
  }
  const prefix = word.includes('/') ? tryParsePrefix(word) : undefined;
  if (prefix === undefined) return word === value;
  const address = parseAddress(value);
  return address.family === prefix.address.family && containsAddress(prefix, address);
}

/** All the keys an expression can have now: one, or one for each number that may be drawn. */
function concatenation(reader: Reader, state: PacketState): string[] {
  let keys = [''];
  let separator = '';
  do {
    const values = expression(reader, state);
    keys = keys.flatMap((key) => values.map((value) => `${key}${separator}${value}`));
    separator = ' . ';
  } while (reader.takes('.'));
  return keys;
}

function expression(reader: Reader, state: PacketState): string[] {
  const original = state.original ?? { destination: state.destination, port: state.port };
  const known: readonly (readonly [string, string])[] = [
    ['ip saddr', state.source],
    ['ip6 saddr', state.source],
    ['ip daddr', state.destination],
    ['ip6 daddr', state.destination],
    ['meta l4proto', state.protocol],
    ['ip protocol', state.protocol],
    ['ip6 nexthdr', state.protocol],
    ['th dport', String(state.port)],
    ['iifname', state.inInterface],
    ['ct original ip daddr', original.destination],
    ['ct original ip6 daddr', original.destination],
    ['ct original proto-dst', String(original.port)],
  ];
  for (const [words, value] of known) if (reader.takes(words)) return [value];
  if (reader.takes('numgen random mod')) {
    const count = Number(reader.word());
    const first = reader.takes('offset') ? Number(reader.word()) : 0;
    return Array.from({ length: count }, (_, i) => String(first + i));
  }
  throw unknown(reader);
}

class Reader {
  readonly text: string;
  readonly #words: readonly string[];
  #at = 0;

  constructor(text: string) {
    this.text = text;
    this.#words = text.split(' ');
  }

  get isDone(): boolean {
    return this.#at >= this.#words.length;
  }

  /** Goes past these words if they are next. */
  takes(words: string): boolean {
    const expected = words.split(' ');
    if (!expected.every((word, i) => this.#words[this.#at + i] === word)) return false;
    this.#at += expected.length;
    return true;
  }

  expect(words: string): void {
    if (!this.takes(words)) throw unknown(this);
  }

  word(): string {
    const word = this.#words[this.#at];
    if (word === undefined) throw unknown(this);
    this.#at += 1;
    return word;
  }
}

function unknown({ text }: Reader): AgentError {
  return new AgentError('UnknownRule', `Cannot trace rule ${JSON.stringify(text)}: unknown words`);
}
