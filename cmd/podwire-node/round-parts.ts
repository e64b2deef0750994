/** What a round of the daemon works with: the effects it calls, as interfaces. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { HostObject } from '#pkg/host-network/object.ts';
import type { Step } from '#pkg/host-network/step.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ObservedTable } from '#pkg/nftables/ruleset.ts';
import type { NftStep } from '#pkg/nftables/plan.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { Desired, HostFacts, PodNetworkOptions } from '#pkg/pod-network/desired.ts';
import type { PeerChange } from '#pkg/pod-network/peer-index.ts';
import type { NodeMetrics } from './node-metrics.ts';
import type { PacketFilterDriver } from './packet-filter-driver.ts';
import type { OwnNode } from './own-node.ts';
import type { NodeStatus } from './status.ts';

/** The host's links, addresses, routes and the like. */
export interface HostDriver {
  facts(): HostFacts;
  /** What the kernel has of ours, and of the kinds of `want` that carry no mark of their owner. */
  observe(want: readonly HostObject[]): readonly HostObject[];
  /** Rejects with an AggregateError of what failed, the rest done. */
  apply(steps: readonly Step[], signal: AbortSignal): Promise<void>;
}

export interface TableDriver {
  observe(signal: AbortSignal): Promise<readonly ObservedTable[]>;
  apply(steps: readonly NftStep[], signal: AbortSignal): Promise<void>;
}

/** Writes only what differs. */
export interface NetworkFiles {
  writeNodeFile(text: string): Promise<void>;
  /** flannel's subnet.env. */
  writeSubnetEnv(text: string): Promise<void>;
  writeConflist(): Promise<void>;
}

/** Carries packets where the kernel does not; undefined = nothing to carry. */
export interface ForwarderDriver {
  apply(forwarding: Desired['forwarding']): Promise<void>;
}

/** A routing daemon beside this one; undefined = it has nothing to do with us. */
export interface RoutingDriver {
  apply(speaker: Desired['routing'], signal: AbortSignal): Promise<void>;
  /** What it said lately of its sessions that are not up. */
  problems(): readonly string[];
}

export interface RoundParts {
  readonly options: PodNetworkOptions;
  readonly nodes: {
    snapshot(): ReadonlyMap<string, NodeRecord>;
    /** What changed since the last call. */
    drain(): readonly PeerChange[];
  };
  readonly host: HostDriver;
  readonly tables: TableDriver;
  readonly packetFilter: Pick<PacketFilterDriver, 'converge' | 'doubt'>;
  readonly forwarder: ForwarderDriver;
  readonly routing: RoutingDriver;
  readonly ownNode: OwnNode;
  readonly files: NetworkFiles;
  readonly status: NodeStatus;
  readonly metrics: Pick<NodeMetrics, 'roundEnded' | 'hostChanged' | 'tablesChanged'>;
  readonly clock: Clock;
  readonly log: Logger;
  /** Everything is read back from the kernel this often, against changes nobody reported. */
  readonly observeIntervalMs: number;
}
