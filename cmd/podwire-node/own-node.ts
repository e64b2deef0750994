/** What we write to the API server: our own Node's annotations and its NetworkUnavailable condition. */
import type { Clock } from '#pkg/clock/clock.ts';

/** One request to the API server; the answer's JSON. */
export interface ApiRequest {
  (
    path: string,
    options: {
      readonly method: 'GET' | 'PATCH';
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string;
      readonly signal: AbortSignal;
    },
  ): Promise<unknown>;
}

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
export function createOwnNode(request: ApiRequest, nodeName: string, clock: Clock): OwnNode {
  const path = `/api/v1/nodes/${encodeURIComponent(nodeName)}`;

  async function patch(body: object, signal: AbortSignal): Promise<void> {
    await request(`${path}/status`, {
      method: 'PATCH',
      // Strategic: conditions are merged by type, and those of others stay.
      headers: { 'content-type': 'application/strategic-merge-patch+json' },
      body: JSON.stringify(body),
      signal,
    });
  }

  return {
    annotate: (annotations, signal) => patch({ metadata: { annotations } }, signal),
    reportNetworkUp: async (signal) => {
      const node = await request(path, { method: 'GET', signal });
      if (hasNetworkUp(node)) return;
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

function hasNetworkUp(node: unknown): boolean {
  const conditions = (node as RawNode | undefined)?.status?.conditions ?? [];
  return conditions.some(
    ({ type, status, reason }) =>
      type === networkUp.type && status === networkUp.status && reason === networkUp.reason,
  );
}
