/**
 * Follows the first packet of a connection through a table, without a kernel: base chains in the
 * order of their hooks, every way that chance can take.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { localTo, type FirstPacket, type Outcome, type TraceHost } from '#pkg/ip/packet-trace.ts';
import type { BaseChain, Chain, Table } from './ruleset.ts';
import { matchRule, type PacketState } from './tracer-match.ts';

/**
 * Every way the packet can go. A client is taken as unknown to session affinity.
 *
 * @throws {AgentError} UnknownRule for a rule or chain the tracer does not know
 */
export function tracePacket(table: Table, packet: FirstPacket, host: TraceHost): Outcome[] {
  const isLocal = localTo(host);
  const start: PacketState = {
    inInterface: '',
    ...packet,
    connection: 'new',
    original: undefined,
    mark: 0,
    masqueraded: false,
    verdict: undefined,
    isLocal,
    trail: [],
  };
  const walker = new Walker(table);
  const fromHost = isLocal(packet.source);
  const entered = walker.hook(fromHost ? 'output' : 'prerouting', [start]);
  const passed = entered.flatMap((state) => {
    const toHost = isLocal(state.destination);
    // What the host sends to itself loops back and comes in; what it sends away is not forwarded.
    if (toHost) return walker.hook('input', [state]);
    return fromHost ? [state] : walker.hook('forward', [state]);
  });
  // What goes to a socket of the host does not pass postrouting, unless it came from the host.
  return passed
    .flatMap((state) =>
      fromHost || !isLocal(state.destination) ? walker.hook('postrouting', [state]) : [state],
    )
    .map(outcomeOf);
}

function outcomeOf(state: PacketState): Outcome {
  const { verdict, original, masqueraded, trail } = state;
  const { destination, port } = state;
  const target = destination.includes(':') ? `[${destination}]:${port}` : `${destination}:${port}`;
  return {
    verdict: verdict ?? 'accept',
    endpoint: original === undefined ? undefined : target,
    masqueraded,
    trail,
  };
}

class Walker {
  readonly #table: Table;
  readonly #chains: ReadonlyMap<string, Chain>;

  constructor(table: Table) {
    this.#table = table;
    this.#chains = new Map(table.chains.map((chain) => [chain.name, chain]));
  }

  /** All base chains of a hook, by priority. Accepting ends one of them; dropping ends all. */
  hook(hook: BaseChain['hook'], states: readonly PacketState[]): PacketState[] {
    const chains = this.#table.chains
      .filter((chain) => chain.base?.hook === hook)
      .toSorted((a, b) => (a.base?.priority ?? 0) - (b.base?.priority ?? 0));
    let now = [...states];
    for (const chain of chains) {
      now = unlikeOthers(
        now.flatMap((state) => {
          if (state.verdict !== undefined) return [state];
          return this.#walk(chain, state).map((s) =>
            s.verdict === 'accept' ? { ...s, verdict: undefined } : s,
          );
        }),
      );
    }
    return now;
  }

  /** All states a chain can leave a packet in; those without a verdict fell off its end. */
  #walk(chain: Chain, state: PacketState): PacketState[] {
    const done: PacketState[] = [];
    let going: PacketState[] = [state];
    for (const { text } of chain.rules) {
      const after: PacketState[] = [];
      for (const before of going) {
        for (const { state: moved, matched, next } of matchRule(text, before, this.#table)) {
          const trail = matched ? [...before.trail, `${chain.name} ${text}`] : before.trail;
          const told = { ...moved, trail };
          if (next === undefined) {
            (told.verdict === undefined ? after : done).push(told);
            continue;
          }
          // A goto does not come back: what falls off the end there has fallen off here too.
          for (const s of this.#walk(this.#chain(next.chain), told)) {
            (next.returns && s.verdict === undefined ? after : done).push(s);
          }
        }
      }
      going = unlikeOthers(after);
      if (going.length === 0) break;
    }
    return [...done, ...going];
  }

  #chain(name: string): Chain {
    const chain = this.#chains.get(name);
    if (chain !== undefined) return chain;
    throw new AgentError('UnknownRule', `Cannot trace a jump to ${name}: no such chain`);
  }
}

/** Chances that lead to the same packet are one: what is tried again doubles them each time. */
function unlikeOthers(states: readonly PacketState[]): PacketState[] {
  const byFate = new Map<string, PacketState>();
  for (const state of states) {
    const { destination, port, mark, masqueraded, verdict } = state;
    const fate = [destination, port, mark, masqueraded, verdict].join(' ');
    if (!byFate.has(fate)) byFate.set(fate, state);
  }
  return [...byFate.values()];
}
