/** One question to the network, and what it says about the answer. */
import type { Family } from '#pkg/ip/address.ts';
import type { CallOutcome } from './agent-protocol.ts';

export interface Probe {
  /** Row of the table it belongs to. */
  readonly row: string;
  readonly family: Family;
  /** The agent that calls. */
  readonly from: string;
  readonly address: string;
  readonly port: number;
  readonly expect: Expectation;
}

export type Expectation =
  | {
      readonly kind: 'answer';
      /** Names of who may answer. */
      readonly servers: readonly string[];
      /** Client addresses the server may see. */
      readonly sources: readonly string[];
      /** Each of the servers must answer within some calls. */
      readonly everyServer?: boolean;
    }
  | { readonly kind: 'refused' };

/**
 * A refused TCP connection ends with the first SYN that is sent again, after one second, seldom the
 * second, after three: on one machine the ICMP error is back while connect() still holds the
 * socket, which then takes no notice. UDP knows at once. A packet that is dropped is not refused.
 */
export const refusedWithinMs = { tcp: 3500, udp: 500 } as const;

/** What is wrong with an outcome; undefined when it is as expected. */
export function problemOf(
  probe: Probe,
  protocol: 'tcp' | 'udp',
  outcome: CallOutcome,
): string | undefined {
  const path = `${protocol} ${probe.from} → ${probe.address} port ${probe.port}`;
  const { expect } = probe;
  if (expect.kind === 'refused') {
    if (outcome.ok) return `${path}: answered by ${outcome.server}, expected a refusal`;
    if (outcome.code !== 'ECONNREFUSED') return `${path}: ${outcome.code}, expected ECONNREFUSED`;
    const limitMs = refusedWithinMs[protocol];
    if (outcome.ms <= limitMs) return undefined;
    return `${path}: refused after ${outcome.ms} ms, expected at most ${limitMs}`;
  }
  if (!outcome.ok) return `${path}: ${outcome.code} after ${outcome.ms} ms`;
  if (!expect.servers.includes(outcome.server)) {
    return `${path}: answered by ${outcome.server}, expected ${expect.servers.join(' or ')}`;
  }
  if (!expect.sources.includes(outcome.source)) {
    return `${path}: the server saw ${outcome.source}, expected ${expect.sources.join(' or ')}`;
  }
  return undefined;
}
