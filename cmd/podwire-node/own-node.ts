/** What we write to the API server: our own Node's annotations and its NetworkUnavailable condition. */
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import { nodeType, type ObjectRef } from '#pkg/kube/resources.ts';
import { startWatchdog } from '#pkg/kube/watchdog.ts';

export interface OwnNode {
  /** Writes these annotations; `null` removes one. */
  annotate(patch: Readonly<Record<string, string | null>>, signal: AbortSignal): Promise<void>;
  /**
   * Makes the condition NetworkUnavailable False, when it is not: the node controller then takes
   * the taint node.kubernetes.io/network-unavailable away. It stays False when the daemon stops, since
   * pods keep their network; kubelet's own Ready tells of a node that is gone.
   */
  reportNetworkUp(signal: AbortSignal): Promise<void>;
}

/** Nothing that other nodes change gets into the kernel meanwhile. */
const answerWithinMs = 5_000;

/**
 * Both go to the status subresource: the daemon needs no right to change a Node's spec. Both reject
 * when the server has not answered after 5 s.
 */
export function createOwnNode(
  client: Pick<KubeClient, 'get' | 'patch'>,
  nodeName: string,
  clock: Clock,
): OwnNode {
  const node: ObjectRef = { type: nodeType, name: nodeName };

  async function patch(body: object, signal: AbortSignal): Promise<void> {
    // Strategic: conditions are merged by type, and those of others stay.
    await client.patch({ ...node, subresource: 'status' }, { kind: 'strategic', body }, signal);
  }

  /** Does the work, for a limited time. */
  async function inTime(
    work: (signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const limits = { idleMs: answerWithinMs, overdueMs: answerWithinMs };
    using watchdog = startWatchdog(clock, limits, signal);
    try {
      await work(watchdog.signal);
    } catch (cause) {
      signal.throwIfAborted();
      throw new AgentError('NodeNotWritten', `Cannot write to our own Node ${nodeName}`, { cause });
    }
  }

  return {
    annotate: (annotations, signal) =>
      inTime((inner) => patch({ metadata: { annotations } }, inner), signal),
    reportNetworkUp: (signal) => inTime(reportNetworkUp, signal),
  };

  async function reportNetworkUp(signal: AbortSignal): Promise<void> {
    const before = conditionOf(await client.get(node, signal));
    if (before?.status === networkUp.status && before.reason === networkUp.reason) return;
    // The API's times have whole seconds.
    const now = new Date(clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
    const condition = {
      ...networkUp,
      message: 'Podwire is running on this node',
      lastHeartbeatTime: now,
      // Of another agent's False it is no transition (API conventions, "Typical status properties").
      lastTransitionTime:
        before?.status === networkUp.status ? (before.lastTransitionTime ?? now) : now,
    };
    await patch({ status: { conditions: [condition] } }, signal);
  }
}

const networkUp = { type: 'NetworkUnavailable', status: 'False', reason: 'PodwireIsUp' } as const;

interface RawCondition {
  readonly type?: unknown;
  readonly status?: unknown;
  readonly reason?: unknown;
  readonly lastTransitionTime?: unknown;
}

interface RawNode {
  readonly status?: { readonly conditions?: readonly RawCondition[] };
}

function conditionOf(node: RawNode): RawCondition | undefined {
  return node.status?.conditions?.find(({ type }) => type === networkUp.type);
}
