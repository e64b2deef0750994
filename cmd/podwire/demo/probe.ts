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
  | { readonly kind: 'refused'; readonly withinMs: number };

/** What is wrong with an outcome; undefined when it is as expected. */
export function problemOf(
  probe: Probe,
  protocol: string,
  outcome: CallOutcome,
): string | undefined {
  const path = `${protocol} ${probe.from} → ${probe.address} port ${probe.port}`;
  const { expect } = probe;
  if (expect.kind === 'refused') {
    if (outcome.ok) return `${path}: answered by ${outcome.server}, expected a refusal`;
    if (outcome.code !== 'ECONNREFUSED') return `${path}: ${outcome.code}, expected ECONNREFUSED`;
    if (outcome.ms <= expect.withinMs) return undefined;
    return `${path}: refused after ${outcome.ms} ms, expected at most ${expect.withinMs}`;
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
