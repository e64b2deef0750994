/** One change to the host's network, as data: planned, printed, counted, then applied. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { describeObject, type HostObject } from './object.ts';

export type Step = PutStep | DeleteStep;

/** Make the kernel have this object. */
export interface PutStep {
  readonly op: 'put';
  readonly object: HostObject;
  /** Our own object that it takes the place of. Without one, nothing that exists is overwritten. */
  readonly replaces: HostObject | undefined;
}

export interface DeleteStep {
  readonly op: 'delete';
  readonly object: HostObject;
}

/** The step in one line: "put fdb 02:… to 192.0.2.7 on podwire.1 (was to 192.0.2.6)". */
export function describeStep(step: Step): string {
  const text = `${step.op} ${describeObject(step.object)}`;
  if (step.op === 'delete' || step.replaces === undefined) return text;
  return `${text} (was ${describeObject(step.replaces)})`;
}

/** A step the kernel refused; its reason is the cause. */
export class StepError extends AgentError {
  readonly step: Step;

  constructor(step: Step, cause: unknown) {
    super('StepFailed', `Cannot ${describeStep(step)}`, { cause });
    this.step = step;
  }
}
