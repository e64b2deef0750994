/**
 * What a proxy mode is to the rest of the daemon: for each IP family somebody who makes the kernel
 * serve the ports he is given. Who watches the API knows nothing of iptables, nftables or ipvs.
 */
import type { Traffic } from '#pkg/conntrack/flow-tally.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import type { ServiceDestination } from '#pkg/proxy/flow-destinations.ts';
import type { PortChange } from '#pkg/proxy/service-model.ts';

/** What one family's kernel shall serve; stays as it is until the write has ended, and no longer. */
export interface Wanted {
  /** By portKey; all ports of the family. */
  readonly ports: ReadonlyMap<string, ProxiedPort>;
  /**
   * Keys of ports that may differ from what was last written with success, also of ports that are
   * gone; 'all' at first and when the writer must take nothing for granted.
   */
  readonly changed: ReadonlySet<string> | 'all';
  /** Our own Node; undefined while the API has none of that name. */
  readonly node: NodeRecord | undefined;
}

/** What a write did. */
export interface WriteReport {
  /** Full = the kernel was read first. */
  readonly kind: 'full' | 'partial';
  /** Rules, elements or commands. */
  readonly written: number;
  /** Where the kernel still sent UDP for Services that nobody knows; undefined = none was seen. */
  readonly abandoned?: readonly ServiceDestination[];
}

export interface FamilyWriter {
  /**
   * Brings the kernel in line with what is wanted. Rejects when anything is left to do: the next
   * call then gets the same keys again, and those that changed meanwhile.
   */
  write(want: Wanted, signal: AbortSignal): Promise<WriteReport>;
  /** Somebody else may have changed what we wrote: the next write reads the kernel. */
  doubt(): void;
}

/** What clients met where a Service answers, since its elements were written. */
export interface FrontendCounts {
  readonly connections: number;
  /** Nobody is there. */
  readonly refused: { readonly packets: number; readonly bytes: number };
  /** Policy Local, and nobody is on this node. */
  readonly dropped: { readonly packets: number; readonly bytes: number };
  /** Not in loadBalancerSourceRanges. */
  readonly barred: { readonly packets: number; readonly bytes: number };
}

/** By frontend: {@link frontendKeys}. */
export interface ServiceCounters {
  services(family: Family): Promise<ReadonlyMap<string, FrontendCounts>>;
  /** Connections by "address port"; empty where endpoints are not counted. */
  endpoints(family: Family): Promise<ReadonlyMap<string, ReadonlyMap<string, number>>>;
}

/** Packets and bytes of Services, established connections and those that ended. */
export interface ServiceTraffic {
  /** What the kernel serves now is different. */
  update(family: Family, changes: readonly PortChange[]): void;
  /** Looks at what was carried: the others tell what the last look has found. Never rejects. */
  look(): Promise<void>;
  /** By frontend: {@link frontendKeys}. */
  total(family: Family, frontend: string): Traffic | undefined;
  /** Of an endpoint, "address port". */
  endpoint(family: Family, frontend: string, endpoint: string): Traffic | undefined;
  /** How often word of ended connections was lost: what they carried since the last look is missing. */
  readonly overflows: number;
}

/** Disposing ends what watches the kernel; what was written stays. */
export interface ProxyMode extends Disposable {
  readonly name: 'iptables' | 'ipvs' | 'nftables';
  /** Of the families that work on this node: one at least. */
  readonly writers: ReadonlyMap<Family, FamilyWriter>;
  /** Undefined where nothing is counted. */
  readonly counters?: ServiceCounters;
  /** Undefined where packets and bytes are not counted. */
  readonly traffic?: ServiceTraffic;
}
