/** /healthz, /livez and /metrics of the node daemon. */
import type { Clock } from '#pkg/clock/clock.ts';
import { text, type Answer, type Routes } from '#pkg/health/http-server.ts';
import type { NodeMetrics } from './node-metrics.ts';
import type { NodeStatus } from './status.ts';

/**
 * A loop without a round for this long hangs: its rounds come at least each 30 s, and a failed one
 * is tried again within 15 s.
 */
const hangsAfterMs = 180_000;

/**
 * /healthz: whether pods of this node reach the others, with the reason when they do not. /livez,
 * for restarts: whether the daemon still works; waiting for the cluster is no reason to restart it.
 */
export function nodeHealthRoutes(
  status: NodeStatus,
  staleness: () => readonly string[],
  metrics: Pick<NodeMetrics, 'render'>,
  clock: Clock,
): Routes {
  return new Map<string, () => Answer | Promise<Answer>>([
    ['/healthz', () => healthz(status, staleness())],
    ['/livez', () => livez(status, clock)],
    [
      '/metrics',
      async () => {
        const { contentType, body } = await metrics.render();
        return { status: 200, contentType, body };
      },
    ],
  ]);
}

/** A kernel that refuses everything gives a reason for each of thousands of objects. */
const maxReasonLength = 2_000;

/**
 * Problems of single peers are listed, and are no reason to take the node out of service; nor is an
 * API server that is away, since pods of nodes that are known reach each other.
 */
function healthz({ state, problems }: NodeStatus, stale: readonly string[]): Answer {
  const lines = [...stale, ...problems.map(({ node, message }) => `node ${node}: ${message}`)];
  if (state.kind === 'ready') return text(200, ['ok', ...lines, ''].join('\n'));
  const reason = state.reason.slice(0, maxReasonLength);
  return text(503, [`${state.kind}: ${reason}`, ...lines, ''].join('\n'));
}

function livez(status: NodeStatus, clock: Clock): Answer {
  const silentMs = clock.monotonicMs() - status.lastRoundMs;
  // Before the first list nothing runs that could hang: the API server is away.
  if (status.state.kind === 'starting' || silentMs < hangsAfterMs) return text(200, 'ok\n');
  return text(503, `no round has ended for ${Math.round(silentMs / 1000)} s\n`);
}
