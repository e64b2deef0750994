/**
 * Follows a packet through a ruleset, without a kernel: which way each rule sends it, and what
 * becomes of it. Rules are read from their text, so what is traced is what is written.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { localTo, type FirstPacket, type Outcome, type TraceHost } from '#pkg/ip/packet-trace.ts';
import type { Ruleset, TableName } from './ruleset.ts';
import { matchRule, type PacketState } from './tracer-match.ts';

/** The first packet of a connection, or one in `state`. */
export interface Packet extends FirstPacket {
  readonly state?: 'NEW' | 'ESTABLISHED' | 'RELATED' | 'INVALID';
}

/**
 * Every way the packet can go. A client is taken as unknown to session affinity.
 *
 * @throws {AgentError} UnknownRule for a match or target the tracer does not know: a guess would
 *   make its answer worthless
 */
export function tracePacket(ruleset: Ruleset, packet: Packet, host: TraceHost): Outcome[] {
  const isLocal = localTo(host);
  const start: PacketState = {
    ...packet,
    state: packet.state ?? 'NEW',
    mark: 0,
    endpoint: undefined,
    masqueraded: false,
    isLocal,
    trail: [],
  };
  const walker = new Walker(ruleset);
  const fromHost = isLocal(packet.source);
  // nat sees only the first packet of a connection.
  const translated =
    start.state === 'NEW'
      ? walker.builtIn('nat', fromHost ? 'OUTPUT' : 'PREROUTING', [start])
      : [start];
  // What the host sends to itself loops back and comes in again.
  const hooks = (state: PacketState): string[] => {
    if (!isLocal(state.destination)) return [fromHost ? 'OUTPUT' : 'FORWARD'];
    return fromHost ? ['OUTPUT', 'INPUT'] : ['INPUT'];
  };
  const filtered = translated.flatMap((state) =>
    hooks(state).reduce<PacketState[]>(
      (states, hook) =>
        states.flatMap((s) =>
          s.verdict === undefined ? walker.builtIn('filter', hook, [s]) : [s],
        ),
      [state],
    ),
  );
  // What goes to a socket of the host does not pass POSTROUTING, unless it came from the host.
  const leaving = (s: PacketState): boolean =>
    s.verdict === undefined && s.state === 'NEW' && (fromHost || !isLocal(s.destination));
  return filtered
    .flatMap((s) => (leaving(s) ? walker.builtIn('nat', 'POSTROUTING', [s]) : [s]))
    .map(({ verdict, endpoint, masqueraded, trail }) => ({
      verdict: verdict === 'reject' || verdict === 'drop' ? verdict : 'accept',
      endpoint,
      masqueraded,
      trail,
    }));
}

class Walker {
  readonly #ruleset: Ruleset;

  constructor(ruleset: Ruleset) {
    this.#ruleset = ruleset;
  }

  /** Runs states through our rules in a built-in chain; `accept` ends only this chain. */
  builtIn(table: TableName, chain: string, states: readonly PacketState[]): PacketState[] {
    const jumps = this.#ruleset.tables.find((t) => t.name === table)?.jumps.get(chain) ?? [];
    return states.flatMap((state) =>
      this.#walk({ table, chain }, jumps, state).map((s) =>
        s.verdict === 'accept' || s.verdict === 'return' ? { ...s, verdict: undefined } : s,
      ),
    );
  }

  /** All states a chain can leave a packet in; those without a verdict fell off its end. */
  #walk(
    at: { readonly table: TableName; readonly chain: string },
    rules: readonly string[],
    state: PacketState,
  ): PacketState[] {
    const done: PacketState[] = [];
    let going: PacketState[] = [state];
    for (const rule of rules) {
      const next: PacketState[] = [];
      for (const before of going) {
        for (const after of matchRule(rule, before)) {
          const told = after.matched
            ? { ...after.state, trail: [...before.trail, `${at.table} ${at.chain} ${rule}`] }
            : after.state;
          for (const s of this.#follow(at.table, after.jump, told)) {
            (s.verdict === undefined ? next : done).push(s);
          }
        }
      }
      going = next;
      if (going.length === 0) break;
    }
    return [...done, ...going];
  }

  /** A jump into a chain comes back unless something there decided. */
  #follow(table: TableName, jump: string | undefined, state: PacketState): PacketState[] {
    if (jump === undefined) return [state];
    const chain = this.#ruleset.tables.find((t) => t.name === table)?.chains.get(jump);
    if (chain === undefined) throw missingChain(jump);
    return this.#walk({ table, chain: jump }, chain, state).map((s) =>
      s.verdict === 'return' ? { ...s, verdict: undefined } : s,
    );
  }
}

function missingChain(chain: string): AgentError {
  return new AgentError('UnknownRule', `Cannot trace a jump to ${chain}: no such chain`);
}
