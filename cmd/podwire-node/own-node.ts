/** What we write to the API server: our own Node's annotations and its NetworkUnavailable condition. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import { nodeType, type ObjectRef } from '#pkg/kube/resources.ts';

export interface OwnNode {
  /** Writes these annotations; `null` removes one. */
  annotate(patch: Readonly<Record<string, string | null>>, signal: AbortSignal): Promise<void>;
  /**
   * Makes the condition NetworkUnavailable False, when it is not: the node controller then takes
   * the taint node.kubernetes.io/network-unavailable away.
   */
  reportNetworkUp(signal: AbortSignal): Promise<void>;
}

/** Both go to the status subresource: the daemon needs no right to change a Node's spec. */
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

  return {
    annotate: (annotations, signal) => patch({ metadata: { annotations } }, signal),
    reportNetworkUp: async (signal) => {
      if (hasNetworkUp(await client.get(node, signal))) return;
      // The API's times have whole seconds.
      const now = new Date(clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
      const condition = {
        ...networkUp,
        message: 'Podwire is running on this node',
        lastHeartbeatTime: now,
        lastTransitionTime: now,
      };
      await patch({ status: { conditions: [condition] } }, signal);
    },
  };
}

const networkUp = { type: 'NetworkUnavailable', status: 'False', reason: 'PodwireIsUp' } as const;

interface RawNode {
  readonly status?: {
    readonly conditions?: readonly { type?: unknown; status?: unknown; reason?: unknown }[];
  };
}

function hasNetworkUp(node: RawNode): boolean {
  return (node.status?.conditions ?? []).some(
    ({ type, status, reason }) =>
      type === networkUp.type && status === networkUp.status && reason === networkUp.reason,
  );
}
