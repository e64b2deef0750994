/** Tracked flows as the proxy speaks of them, and which of them it wants forgotten. */
import type { Family } from '#pkg/ip/address.ts';

/** Endpoints are "ip:port" or "[ip]:port", addresses canonical. */
export interface TrackedFlow {
  /** Where the first packet went, as its sender wrote it. */
  readonly destination: string;
  /** Who answers: another than the destination if the flow is translated. */
  readonly server: string;
}

export interface FlowDestination {
  /** Canonical. */
  readonly addresses: readonly string[];
  readonly port: number;
}

/** Flows to look at, by where their first packet went. */
export interface FlowSearch {
  readonly family: Family;
  /** IPPROTO_*. */
  readonly protocol: number;
  readonly destinations: readonly FlowDestination[];
  /** Asked of flows to the destinations only. */
  readonly isStale: (flow: TrackedFlow) => boolean;
}

/** What a search cost and brought. */
export interface FlowsRemoved {
  readonly deleted: number;
  /** Entries the kernel listed. */
  readonly listed: number;
  /** Messages to the kernel: dumps and deletions. */
  readonly requests: number;
  /** False when the kernel could not list all: what it did list was looked at. */
  readonly complete: boolean;
}
