/** What the daemon is doing, for /healthz, /livez and people. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { NodeProblem } from '#pkg/overlay/node-facts.ts';

export type NodeState =
  | { readonly kind: 'starting'; readonly reason: string }
  /** Something outside is missing: the reason says what. */
  | { readonly kind: 'waiting'; readonly reason: string }
  | { readonly kind: 'failing'; readonly reason: string }
  | { readonly kind: 'ready' };

/** Holds the state and logs its transitions, each once. */
export class NodeStatus {
  readonly #clock: Clock;
  readonly #log: Logger;
  #state: NodeState = { kind: 'starting', reason: 'the list of Nodes has not arrived yet' };
  #problems: ReadonlyMap<string, NodeProblem> = new Map();
  #lastRoundMs: number;

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
    this.#lastRoundMs = clock.monotonicMs();
  }

  get state(): NodeState {
    return this.#state;
  }

  /** Of single peers: they make the daemon neither unready nor unhealthy. */
  get problems(): readonly NodeProblem[] {
    return [...this.#problems.values()];
  }

  /** When the last round ended, well or not, by `Clock.monotonicMs`. */
  get lastRoundMs(): number {
    return this.#lastRoundMs;
  }

  /** A round has ended like this. Failures are logged by the loop, with their errors. */
  roundEnded(state: NodeState): void {
    this.#lastRoundMs = this.#clock.monotonicMs();
    const before = this.#state;
    this.#state = state;
    if (state.kind === 'ready' && before.kind !== 'ready') {
      this.#log.info({}, 'Pod network is ready');
    }
    if (state.kind === 'waiting' && !sameState(before, state)) {
      this.#log.warn({ reason: state.reason }, 'Pod network has to wait');
    }
  }

  setProblems(problems: readonly NodeProblem[]): void {
    const next = new Map(
      problems.map((problem) => [`${problem.node}\n${problem.message}`, problem]),
    );
    for (const [key, problem] of next) {
      if (!this.#problems.has(key)) this.#log.warn({ ...problem }, 'Node has a problem');
    }
    for (const [key, problem] of this.#problems) {
      if (!next.has(key)) this.#log.info({ ...problem }, 'Problem of node is gone');
    }
    this.#problems = next;
  }
}

function sameState(a: NodeState, b: NodeState): boolean {
  return a.kind === b.kind && a.kind !== 'ready' && b.kind !== 'ready' && a.reason === b.reason;
}
