/**
 * The cluster's nodes from etcd, as flannel keeps them: each has a subnet by a lease. Takes one for
 * this node, keeps it alive, and follows the others. What is known stays known while etcd is away.
 */
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError, isErrno, messageOf } from '#pkg/errors/agent-error.ts';
import type { EtcdClient } from '#pkg/etcd/client.ts';
import type { EtcdEntry, EtcdEvent } from '#pkg/etcd/records.ts';
import { formatAddress, sameAddress, type Address } from '#pkg/ip/address.ts';
import { createStore, type Store } from '#pkg/kube/store.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ByFamily } from '#pkg/overlay/node-facts.ts';
import {
  changeLeaseValue,
  formatLeaseKey,
  leaseRecord,
  parseLeaseKey,
  parseLeaseValue,
  sameSubnets,
  type LeasedSubnets,
  type LeaseEntry,
} from '#pkg/pod-network/subnet-lease.ts';
import type { OwnNode } from './own-node.ts';
import { toleratedMs } from './node-source.ts';
import { acquireSubnet, type HeldLease, type SubnetRules } from './subnet-acquisition.ts';

export interface EtcdSourceParts extends SubnetRules {
  readonly client: EtcdClient;
  /** Of all keys, without a slash at its end. */
  readonly prefix: string;
  /** The network's configuration that this daemon was started with. */
  readonly configText: string;
  readonly nodeName: string;
  readonly annotationPrefix: string;
  /** A subnet this node had before. */
  readonly previous: LeasedSubnets | undefined;
  /** This host's own addresses now, those it had if it has them still; or what is missing. */
  readonly addresses: (before: ByFamily<Address>) => ByFamily<Address> | string;
  /** What others send to where it is no address of this host. */
  readonly publicIPs: ByFamily<Address>;
  /** A lease is renewed as long before its end. */
  readonly renewMarginSeconds: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** Told why there is no subnet yet, and undefined when there is one. */
  readonly onWaiting: (reason: string) => void;
}

/** Doubled after each failure in a row. */
const firstRetryMs = 500;
const maxRetryMs = 15_000;
/** What has worked for so long works: the next failure is the first in a row. */
const healthyAfterMs = 10_000;

export class EtcdSource {
  readonly #parts: EtcdSourceParts;
  readonly #nodes = createStore<NodeRecord>({ ignoreVersions: true });
  #own: HeldLease | undefined;
  #previous: LeasedSubnets | undefined;
  /** The host's addresses when the lease was taken. */
  #addresses: ByFamily<Address> = {};
  /** Since when, by the monotonic clock, and why nothing is heard from etcd. */
  #silence: { readonly sinceMs: number; readonly reason: string } | undefined;
  /** Ends the session under way. */
  #startOver: (why: AgentError) => void = () => undefined;
  /** Keys that are none, reported once each. */
  readonly #odd = new Set<string>();

  constructor(parts: EtcdSourceParts) {
    this.#parts = parts;
    this.#previous = parts.previous;
  }

  get nodes(): Store<NodeRecord> {
    return this.#nodes;
  }

  readonly ownNode: OwnNode = {
    annotate: (patch, signal) => this.#annotate(patch, signal),
    // There is nobody to tell.
    reportNetworkUp: async () => undefined,
  };

  staleness(): readonly string[] {
    const { clock } = this.#parts;
    if (this.#silence === undefined) return [];
    const { reason, sinceMs } = this.#silence;
    const silentMs = clock.monotonicMs() - sinceMs;
    if (silentMs <= toleratedMs) return [];
    const since = new Date(clock.now() - silentMs).toISOString();
    return [`nothing is heard from etcd since ${since}: ${reason}`];
  }

  /** This host has lost an address: if it was known by it, its lease must say another. */
  addressGone(address: Address): void {
    if (!Object.values(this.#addresses).some((own) => sameAddress(own, address))) return;
    const reason = `Cannot go on as ${formatAddress(address)}: this host has lost the address`;
    this.#startOver(new AgentError('AddressGone', reason));
  }

  /** Returns when the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#parts;
    let failures = 0;
    while (!signal.aborted) {
      const startedMs = clock.monotonicMs();
      try {
        await this.#session(signal);
      } catch (error) {
        if (signal.aborted) return;
        if (clock.monotonicMs() - startedMs >= healthyAfterMs) failures = 0;
        const isExpected = isErrno(error, 'EtcdCompacted') || isErrno(error, 'LeaseLost');
        const retryInMs =
          isExpected && failures === 0 ? 0 : Math.min(maxRetryMs, firstRetryMs * 2 ** failures);
        failures += 1;
        const reason = messageOf(error);
        this.#silence = { sinceMs: this.#silence?.sinceMs ?? clock.monotonicMs(), reason };
        this.#parts.onWaiting(reason);
        log.warn({ err: error, retryInMs }, 'Nodes in etcd: starting over');
        await clock.sleep(retryInMs, signal).catch(() => undefined);
      }
    }
  }

  /** Lists, makes sure of our own subnet, and follows: until something goes wrong. */
  async #session(signal: AbortSignal): Promise<void> {
    const { client, prefix } = this.#parts;
    const { revision, entries } = await client.list(`${prefix}/`, signal);
    const leases = entries.flatMap((entry) => this.#read(entry));
    // From here on: what goes while the subnet is being taken counts.
    const over = Promise.withResolvers<never>();
    over.promise.catch(() => undefined);
    this.#startOver = over.reject;
    const addresses = this.#parts.addresses(this.#addresses);
    if (typeof addresses === 'string') throw new AgentError('NoAddress', addresses);
    this.#addresses = addresses;
    const own = await this.#acquire(leases, signal);
    const others = leases.filter(({ key }) => key !== own.key);
    this.#silence = undefined;
    this.#nodes.replace([own, ...others].map((lease) => this.#recordOf(lease)));
    const inner = new AbortController();
    const both = AbortSignal.any([signal, inner.signal]);
    const parts = [this.#follow(revision, own, both), this.#keepAlive(own, both), over.promise];
    try {
      await Promise.race(parts);
    } finally {
      inner.abort();
      over.reject(new AgentError('Over', 'The session is over'));
      await Promise.allSettled(parts);
    }
  }

  async #acquire(leases: readonly HeldLease[], signal: AbortSignal): Promise<HeldLease> {
    const { log, publicIPs } = this.#parts;
    const before = this.#previous;
    const own = await acquireSubnet(this.#parts, {
      leases,
      publicIPs: { ...this.#addresses, ...publicIPs },
      previous: before,
      held: this.#own,
      relist: async () => {
        const { entries } = await this.#parts.client.list(this.#subnetsPrefix, signal);
        return entries.flatMap((entry) => this.#read(entry));
      },
      keyOf: (subnets) => this.#subnetsPrefix + formatLeaseKey(subnets),
      signal,
    });
    const had = this.#own?.subnets;
    if (had !== undefined && !sameSubnets(had, own.subnets)) {
      log.error(
        { before: formatLeaseKey(had), subnet: formatLeaseKey(own.subnets) },
        'The subnet of this node has changed: pods made before must be made again',
      );
    }
    this.#own = own;
    this.#previous = own.subnets;
    const lease = own.lease ?? 'none, it is a reservation';
    log.info({ subnet: formatLeaseKey(own.subnets), lease }, 'Have a subnet');
    return own;
  }

  async #follow(revision: string, own: HeldLease, signal: AbortSignal): Promise<void> {
    const { client } = this.#parts;
    for await (const { events } of client.watch(`${this.#parts.prefix}/`, revision, signal)) {
      for (const event of events) this.#take(event, own);
    }
  }

  #take(event: EtcdEvent, own: HeldLease): void {
    if (event.kind === 'delete') {
      if (event.key === own.key) {
        const subnet = formatLeaseKey(own.subnets);
        throw new AgentError(
          'LeaseLost',
          `Cannot keep subnet ${subnet}: its key ${own.key} is gone from etcd, by hand or because the lease ran out`,
        );
      }
      const subnets = parseLeaseKey(event.key.slice(this.#subnetsPrefix.length));
      if (subnets !== undefined) this.#nodes.remove(formatLeaseKey(subnets));
      return;
    }
    for (const lease of this.#read(event.entry)) {
      if (lease.key === own.key) this.#own = lease;
      this.#nodes.put(this.#recordOf(lease));
    }
  }

  async #keepAlive({ lease, key }: HeldLease, signal: AbortSignal): Promise<void> {
    const { client, clock, renewMarginSeconds: margin } = this.#parts;
    for (;;) {
      if (lease === undefined) {
        await clock.sleep(maxTimerMs, signal);
        continue;
      }
      const ttl = await client.renewLease(lease, signal);
      if (ttl === 0) {
        throw new AgentError('LeaseLost', `Cannot keep ${key}: its lease ${lease} has ended`);
      }
      await clock.sleep(renewInSeconds(ttl, margin) * 1000, signal);
    }
  }

  async #annotate(
    patch: Readonly<Record<string, string | null>>,
    signal: AbortSignal,
  ): Promise<void> {
    const { annotationPrefix, client } = this.#parts;
    const own = this.#own;
    if (own === undefined) return;
    const value = changeLeaseValue(own.value, patch, annotationPrefix);
    const { key, createRevision, lease } = own;
    const put = { op: 'put', key, value: JSON.stringify(value), lease } as const;
    // Not if the key is another's by now: its lease would then end with ours.
    const revision = await client.transact([{ key, createRevision }], [put], signal);
    if (revision === undefined) {
      throw new AgentError('LeaseLost', `Cannot write ${key} to etcd: it is not ours any more`);
    }
    this.#own = { ...own, value, modRevision: revision };
    this.#nodes.put(this.#recordOf(this.#own));
  }

  #recordOf(lease: LeaseEntry & { readonly key: string }): NodeRecord {
    const { annotationPrefix, nodeName, publicIPs } = this.#parts;
    if (lease.key !== this.#own?.key) return leaseRecord(lease, annotationPrefix);
    const addresses = Object.values(this.#addresses);
    const record = leaseRecord(lease, annotationPrefix, { name: nodeName, addresses });
    const overwrite: Record<string, string> = {};
    const { ip, ip6 } = publicIPs;
    if (ip !== undefined) overwrite[`${annotationPrefix}public-ip-overwrite`] = formatAddress(ip);
    if (ip6 !== undefined) {
      overwrite[`${annotationPrefix}public-ipv6-overwrite`] = formatAddress(ip6);
    }
    return {
      ...record,
      // The store takes two of one version for the same.
      resourceVersion: [record.resourceVersion, ...record.internalIPs].join(' '),
      annotations: { ...record.annotations, ...overwrite },
    };
  }

  /** The lease an entry is, if it is one; a new configuration is told. */
  #read(entry: EtcdEntry): readonly HeldLease[] {
    if (entry.key.startsWith(this.#subnetsPrefix)) return [this.#leaseOf(entry) ?? []].flat();
    const { configText, log, prefix } = this.#parts;
    if (entry.key === `${prefix}/config` && entry.value !== configText) {
      log.warn({ key: entry.key }, 'The configuration of the network has changed: start again');
    }
    return [];
  }

  #leaseOf(entry: EtcdEntry): HeldLease | undefined {
    const { key, value: text, createRevision, modRevision, lease } = entry;
    const subnets = parseLeaseKey(key.slice(this.#subnetsPrefix.length));
    const value = subnets === undefined ? undefined : parseLeaseValue(text);
    if (subnets === undefined || value === undefined) {
      if (!this.#odd.has(key)) this.#parts.log.warn({ key }, 'Cannot read a subnet in etcd');
      this.#odd.add(key);
      return undefined;
    }
    return { key, subnets, value, createRevision, modRevision, lease };
  }

  get #subnetsPrefix(): string {
    return `${this.#parts.prefix}/subnets/`;
  }
}

/** The longest time a timer can wait. */
const maxTimerMs = 2 ** 31 - 1;

/** Before the margin begins, but never more often than at half of the time. */
export function renewInSeconds(ttlSeconds: number, marginSeconds: number): number {
  return Math.min(maxTimerMs / 1000, Math.max(ttlSeconds - marginSeconds, ttlSeconds / 2));
}
