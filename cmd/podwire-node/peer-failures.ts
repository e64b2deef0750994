/** Failures of a round that concern single other nodes: neither we nor the rest are the worse for them. */
import type { HostObject } from '#pkg/host-network/object.ts';
import { StepError } from '#pkg/host-network/step.ts';

const peerKinds: ReadonlySet<HostObject['kind']> = new Set([
  'route',
  'neighbor',
  'fdb',
  'wireguard-peer',
]);

export interface PeerFailures extends AggregateError {
  readonly errors: StepError[];
}

export function concernsPeersOnly(error: unknown): error is PeerFailures {
  return (
    error instanceof AggregateError &&
    error.errors.every((e) => e instanceof StepError && peerKinds.has(e.step.object.kind))
  );
}

/** What the kernel has not got. */
export function notPut({ errors }: PeerFailures): ReadonlySet<HostObject> {
  return new Set(errors.map(({ step }) => step.object));
}
