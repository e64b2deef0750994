/**
 * Carries planned steps out. Every decision was taken in plan.ts; this knows only which errno means
 * "already so", and how far one failure reaches.
 */
import { setImmediate } from 'node:timers/promises';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { isDevice } from './device.ts';
import { objectLink } from './object.ts';
import { StepError, type Step } from './step.ts';

/** The writing this needs; rtnetlink.ts does it. */
export interface KernelWriter {
  /** Carries out steps that do not depend on each other: undefined or an error for each. */
  write(steps: readonly Step[]): readonly (Error | undefined)[];
}

/**
 * Tries every step it can. What lives on a link whose own step failed is left to the next plan, as
 * it would fail for the same reason. Between batches other work gets its turn.
 *
 * @throws {AggregateError} of StepErrors, after the last step
 */
export async function applyHostNetwork(
  kernel: KernelWriter,
  steps: readonly Step[],
  signal: AbortSignal,
): Promise<void> {
  const failures: StepError[] = [];
  const brokenLinks = new Set<string>();
  for (const batch of independentBatches(steps)) {
    signal.throwIfAborted();
    const possible = batch.filter(({ object }) => !brokenLinks.has(objectLink(object) ?? ''));
    for (const failure of writeBatch(kernel, possible)) {
      failures.push(failure);
      const { object } = failure.step;
      if (isDevice(object)) brokenLinks.add(object.link);
    }
    await setImmediate();
  }
  if (failures.length === 0) return;
  throw new AggregateError(
    failures,
    `Cannot apply ${failures.length} of ${steps.length} changes to the host network`,
  );
}

/** A batch blocks the event loop while the kernel works: 10 to 30 ms for this many routes. */
const maxBatch = 1000;

/** Runs of steps that do the same to the same kind of object: none of them needs another. */
function* independentBatches(steps: readonly Step[]): Generator<readonly Step[]> {
  let batch: Step[] = [];
  for (const step of steps) {
    const [first] = batch;
    const alike = first?.op === step.op && first.object.kind === step.object.kind;
    if (batch.length > 0 && (!alike || batch.length === maxBatch)) {
      yield batch;
      batch = [];
    }
    batch.push(step);
  }
  if (batch.length > 0) yield batch;
}

function writeBatch(kernel: KernelWriter, steps: readonly Step[]): StepError[] {
  if (steps.length === 0) return [];
  let results: readonly (Error | undefined)[];
  try {
    results = kernel.write(steps);
  } catch (cause) {
    // Sending or receiving failed: nothing is known of any of them.
    return steps.map((step) => new StepError(step, cause));
  }
  return steps.flatMap((step, i) => {
    const cause = results[i];
    return cause === undefined || isAlreadySo(step, cause) ? [] : [new StepError(step, cause)];
  });
}

/** Whether the error says that the kernel was faster, or somebody else. */
function isAlreadySo(step: Step, error: Error): boolean {
  if (step.op === 'put') return step.object.kind === 'address' && isErrno(error, 'EEXIST');
  // ENODEV: gone with its link. ESRCH: routes; ENOENT: neighbours, FDB; EADDRNOTAVAIL: addresses.
  return ['ENODEV', 'ESRCH', 'ENOENT', 'EADDRNOTAVAIL'].some((code) => isErrno(error, code));
}
