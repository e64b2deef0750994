/** Kubernetes Events: what people see under `kubectl describe`. */
import type { Clock } from '#pkg/clock/clock.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { KubeClient } from './client.ts';
import { eventType, type ResourceType } from './resources.ts';

/** The object an Event is about. */
export interface EventTarget {
  readonly type: ResourceType;
  /** Empty for cluster-scoped kinds. */
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

export interface EventReport {
  readonly target: EventTarget;
  readonly type: 'Normal' | 'Warning';
  /** Why, as one UpperCamelCase word. */
  readonly reason: string;
  /** For people; the same text again is counted, not repeated. */
  readonly message: string;
}

export interface EventRecorder {
  /**
   * Posts the report, or raises the count of the Event that said the same before. Resolves to false
   * when it was left out because there were too many about this object. Rejects as the client does.
   */
  record(report: EventReport, signal: AbortSignal): Promise<boolean>;
}

export interface EventRecorderOptions {
  readonly client: Pick<KubeClient, 'create' | 'patch'>;
  readonly clock: Clock;
  /** The program: "podwire-node". */
  readonly component: string;
  readonly nodeName: string;
}

/** client-go's limits: 25 in a burst for one object, then one each 5 minutes. */
const burst = 25;
const refillMs = 5 * 60_000;
const maxRemembered = 1_000;

interface Posted {
  readonly namespace: string;
  readonly name: string;
  count: number;
}

/**
 * Posts Events. One that says the same as an earlier one raises that one's count; of each object no
 * more are posted than its budget allows. Rejects when the server refuses.
 */
export function createEventRecorder(options: EventRecorderOptions): EventRecorder {
  const posted = new Map<string, Posted>();
  const budgets = new Map<string, { tokens: number; atMs: number }>();

  /** Takes one from the target's budget, which refills with time. */
  function isAllowed(target: EventTarget): boolean {
    const key = `${target.type.kind}/${target.namespace}/${target.name}`;
    const now = options.clock.monotonicMs();
    const before = budgets.get(key) ?? { tokens: burst, atMs: now };
    const tokens = Math.min(burst, before.tokens + (now - before.atMs) / refillMs);
    if (tokens < 1) return false;
    remember(budgets, key, { tokens: tokens - 1, atMs: now });
    return true;
  }

  async function record(report: EventReport, signal: AbortSignal): Promise<boolean> {
    if (!isAllowed(report.target)) return false;
    const { target } = report;
    const key = JSON.stringify([
      target.uid,
      target.name,
      report.type,
      report.reason,
      report.message,
    ]);
    const known = posted.get(key);
    if (known !== undefined) {
      try {
        await raiseCount(options, known, signal);
        return true;
      } catch (error) {
        // Servers drop Events after an hour.
        if (!isErrno(error, 'NotFound')) throw error;
      }
    }
    remember(posted, key, await post(options, report, signal));
    return true;
  }

  return { record };
}

async function raiseCount(
  options: EventRecorderOptions,
  known: Posted,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, name } = known;
  const body = { count: known.count + 1, lastTimestamp: timestamp(options.clock) };
  await options.client.patch({ type: eventType, namespace, name }, { kind: 'merge', body }, signal);
  known.count += 1;
}

async function post(
  options: EventRecorderOptions,
  report: EventReport,
  signal: AbortSignal,
): Promise<Posted> {
  const { target } = report;
  const { group, version, kind } = target.type;
  const namespace = target.namespace === '' ? 'default' : target.namespace;
  const at = timestamp(options.clock);
  const stored = await options.client.create(
    { type: eventType, namespace },
    {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { namespace, generateName: `${target.name}.` },
      involvedObject: {
        apiVersion: group === '' ? version : `${group}/${version}`,
        kind,
        name: target.name,
        // `kubectl describe node` looks Events up by the Node's name in place of its uid.
        uid: kind === 'Node' ? target.name : target.uid,
        ...(target.namespace === '' ? {} : { namespace: target.namespace }),
      },
      type: report.type,
      reason: report.reason,
      message: report.message,
      source: { component: options.component, host: options.nodeName },
      reportingComponent: options.component,
      reportingInstance: options.nodeName,
      firstTimestamp: at,
      lastTimestamp: at,
      count: 1,
    },
    signal,
  );
  const { name } = stored['metadata'] as { readonly name: string };
  return { namespace, name, count: 1 };
}

/** Puts the key last; the one unused for longest makes room. */
function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
  const [oldest] = map.keys();
  if (map.size > maxRemembered && oldest !== undefined) map.delete(oldest);
}

/** metav1.Time has whole seconds. */
function timestamp(clock: Clock): string {
  return new Date(clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
}
