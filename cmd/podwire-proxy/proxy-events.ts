/**
 * Events of the proxy: that it started, and what of the cluster's objects it cannot serve. They need
 * no right beyond those of ClusterRole system:node-proxier. What cannot be posted is not worth a
 * failure: the log has it too.
 */
import type { EventRecorder, EventReport, EventTarget } from '#pkg/kube/events.ts';
import { endpointSliceType, nodeType, serviceType } from '#pkg/kube/resources.ts';
import type { ObjectMeta } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { Problem } from '#pkg/proxy/proxied-port.ts';

export interface ProxyEvents {
  /** About our own Node. */
  ofNode(event: Pick<EventReport, 'type' | 'reason' | 'message'>): void;
  /** A Service or EndpointSlice cannot be served, or not all of it; `reason` is one word. */
  ofProblem(problem: Problem, reason?: string): void;
  /** Resolves when all that was asked for is posted, or has failed. */
  settled(): Promise<void>;
}

export interface ProxyEventsParts {
  readonly recorder: EventRecorder;
  readonly nodeName: string;
  readonly services: { get(key: string): ObjectMeta | undefined };
  readonly slices: { get(key: string): ObjectMeta | undefined };
  readonly log: Pick<Logger, 'debug'>;
}

export function createProxyEvents(parts: ProxyEventsParts, signal: AbortSignal): ProxyEvents {
  const { log, nodeName, recorder } = parts;
  const node: EventTarget = { type: nodeType, namespace: '', name: nodeName, uid: nodeName };
  let work: Promise<unknown> = Promise.resolve();

  /** One after the other: a cluster full of bad objects is no reason for a burst of requests. */
  function post(report: EventReport): void {
    work = work.then(async () => {
      if (signal.aborted) return;
      try {
        await recorder.record(report, signal);
      } catch (err) {
        if (!signal.aborted) log.debug({ err, reason: report.reason }, 'Event not posted');
      }
    });
  }

  return {
    ofNode: (event) => post({ ...event, target: node }),
    ofProblem: ({ kind, object, problem }, reason = 'CannotServe') => {
      const [type, store] =
        kind === 'Service' ? [serviceType, parts.services] : [endpointSliceType, parts.slices];
      const meta = store.get(object);
      // An object that is gone has nobody who would read it.
      if (meta === undefined) return;
      const { name, namespace, uid } = meta;
      const target = { type, namespace, name, uid };
      post({ target, type: 'Warning', reason, message: problem });
    },
    settled: async () => void (await work),
  };
}
