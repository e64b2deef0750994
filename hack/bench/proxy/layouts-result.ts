/** Figures of one layout at one size, as a line of a file that is kept. Milliseconds unless named otherwise. */
export interface LayoutResult {
  readonly name: string;
  readonly services: number;
  readonly endpoints: number;
  /** Of the machine, over the last minute. */
  readonly load: number;
  /** Of each load; empty where there is nothing to load, or none came to its end. */
  readonly loadMs: readonly number[];
  readonly givenUpAfterMs: number | undefined;
  readonly changeMs: readonly [p50: number, p99: number] | undefined;
  /** Listing the table, as kube-proxy does with each sync. */
  readonly listMs: number | undefined;
  readonly connectMicros: readonly [p50: number, p99: number] | undefined;
  readonly podMicros: readonly [p50: number, p99: number] | undefined;
  readonly connectionsPerSecond: number | undefined;
  readonly podConnectionsPerSecond: number | undefined;
}
