/**
 * Follows a packet through a ruleset, without a kernel: which way each rule sends it, and what
 * becomes of it. Rules are read from their text, so what is traced is what is written.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { localTo, type FirstPacket, type Outcome, type TraceHost } from '#pkg/ip/packet-trace.ts';
import type { Ruleset, TableName } from './ruleset.ts';
import { matchRule, type InSet, type PacketState } from './tracer-match.ts';

/** The first packet of a connection, or one in `state`. */
export interface Packet extends FirstPacket {
  readonly state?: 'NEW' | 'ESTABLISHED' | 'RELATED' | 'INVALID';
}

/** What the kernel's IPVS and sets do beside rules. */
export interface TracedIpvs {
  readonly inSet: InSet;
  /** Where a virtual server may send a packet; undefined where there is none. */
  endpoints(packet: {
    readonly protocol: string;
    readonly destination: string;
    readonly port: number;
  }): readonly { readonly address: string; readonly port: number }[] | undefined;
}

/**
 * Every way the packet can go. A client is taken as unknown to session affinity.
 *
 * @throws {AgentError} UnknownRule for a match or target the tracer does not know: a guess would
 *   make its answer worthless
 */
export function tracePacket(
  ruleset: Ruleset,
  packet: Packet,
  host: TraceHost,
  ipvs?: TracedIpvs,
): Outcome[] {
  const isLocal = localTo(host);
  const start: PacketState = {
    ...packet,
    state: packet.state ?? 'NEW',
    mark: 0,
    endpoint: undefined,
    masqueraded: false,
    isLocal,
    inSet: ipvs?.inSet,
    trail: [],
  };
  const walker = new Walker(ruleset);
  const fromHost = isLocal(packet.source);
  // nat sees only the first packet of a connection.
  const translated =
    start.state === 'NEW'
      ? walker.builtIn('nat', fromHost ? 'OUTPUT' : 'PREROUTING', [start])
      : [start];
  const filter = (state: PacketState, hooks: readonly string[]): PacketState[] =>
    hooks.reduce<PacketState[]>(
      (states, hook) =>
        states.flatMap((s) =>
          s.verdict === undefined ? walker.builtIn('filter', hook, [s]) : [s],
        ),
      [state],
    );
  const filterAll = (state: PacketState): PacketState[] => {
    // What the host sends to itself loops back and comes in again.
    if (fromHost) {
      // IPVS sees it before the filter (net/netfilter/ipvs/ip_vs_core.c: NF_IP_PRI_NAT_DST + 2).
      return balance(state, ipvs).flatMap((s) =>
        filter(s, isLocal(s.destination) ? ['OUTPUT', 'INPUT'] : ['OUTPUT']),
      );
    }
    if (!isLocal(state.destination)) return filter(state, ['FORWARD']);
    // After the filter (NF_IP_PRI_NAT_SRC - 1), and what is sent on passes OUTPUT.
    return filter(state, ['INPUT'])
      .flatMap((s) => (s.verdict === undefined ? balance(s, ipvs) : [s]))
      .flatMap((s) => (s.endpoint === state.endpoint ? [s] : filter(s, ['OUTPUT'])));
  };
  const filtered = translated.flatMap(filterAll);
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

/** Each endpoint that IPVS may choose; a virtual server without any refuses, as ip_vs_leave() does. */
function balance(state: PacketState, ipvs: TracedIpvs | undefined): PacketState[] {
  const endpoints = ipvs?.endpoints(state);
  if (endpoints === undefined) return [state];
  if (endpoints.length === 0) return [{ ...state, verdict: 'reject' }];
  return endpoints.map(({ address, port }) => ({
    ...state,
    destination: address,
    port,
    endpoint: address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`,
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
