/** Sends elements to one family's table, as many as fit in each transaction, and counts them. */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { onDemandChain } from '#pkg/proxy/nftables-affinity.ts';
import { Changes, type ElementChange } from '#pkg/proxy/nftables-book.ts';
import { chainOf } from '#pkg/proxy/nftables-elements.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { proxySetNames } from '#pkg/proxy/nftables-sets.ts';
import { breathe, sliceMs } from '#pkg/reconcile/slices.ts';
import type { NftablesDriver } from './nftables-driver.ts';

/** Elements of a transaction: the kernel takes some milliseconds, during which nothing else runs. */
const elementsPerTransaction = 1_000;

/** A transaction that no kernel state explains: something in it cannot be. */
export class RefusedElements extends AgentError {
  readonly changes: readonly ElementChange[];
  /** Transactions of the same call that went before it. */
  readonly transactionsBefore: number;

  constructor(changes: readonly ElementChange[], transactionsBefore: number, cause: unknown) {
    const what = `${changes.length} elements`;
    super('ElementsRefused', `Cannot write ${what}: the kernel refuses one`, { cause });
    this.changes = changes;
    this.transactionsBefore = transactionsBefore;
  }
}

export class NftablesEditor {
  readonly #parts: {
    readonly family: Family;
    readonly driver: NftablesDriver;
    readonly log: Logger;
  };
  readonly #chains = new Set<string>();
  readonly #counts = new Map<string, number>();

  constructor(parts: {
    readonly family: Family;
    readonly driver: NftablesDriver;
    readonly log: Logger;
  }) {
    this.#parts = parts;
  }

  /** On-demand chains there are. */
  get chains(): ReadonlySet<string> {
    return this.#chains;
  }

  /** How many elements each set has. */
  get counts(): ReadonlyMap<string, number> {
    return this.#counts;
  }

  /** The table has these. */
  begin(chains: Iterable<string>, contents: ReadonlyMap<string, { readonly size: number }>): void {
    this.#chains.clear();
    for (const name of chains) this.#chains.add(name);
    for (const set of proxySetNames) this.#counts.set(set, contents.get(set)?.size ?? 0);
  }

  /**
   * Sends units, each whole in one transaction. Returns how many elements that were.
   *
   * @throws {RefusedElements} what came before it in the same call is done
   * @throws {NetlinkError} when the table is not what the changes expect, or for want of rights
   */
  async send(
    units: Iterable<readonly ElementChange[]>,
    options: NftablesOptions,
    signal: AbortSignal,
  ): Promise<number> {
    let pending = new Changes();
    const sent = { written: 0, transactions: 0, messages: 0, bytes: 0, kernelMs: 0 };
    const flush = (): void => {
      const changes = pending.list();
      pending = new Changes();
      if (changes.length === 0) return;
      signal.throwIfAborted();
      this.#addChains(changes, options);
      const startedMs = performance.now();
      const { bytes, messages } = this.#edit(changes, sent.transactions);
      sent.kernelMs += performance.now() - startedMs;
      sent.transactions += 1;
      sent.messages += messages;
      sent.bytes += bytes;
      sent.written += changes.length;
      for (const change of changes) this.#count(change);
    };
    let sentAtMs = performance.now();
    for (const unit of units) {
      for (const change of unit) pending.put(change);
      const isFull = pending.size >= elementsPerTransaction;
      if (isFull) flush();
      if (isFull || performance.now() - sentAtMs > sliceMs) {
        await breathe();
        sentAtMs = performance.now();
      }
    }
    flush();
    const { family, log } = this.#parts;
    if (sent.written > 0) log.debug({ family, ...sent }, 'Elements written');
    return sent.written;
  }

  #edit(changes: readonly ElementChange[], transactionsBefore: number) {
    try {
      return this.#parts.driver.edit(changes);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      throw new RefusedElements(changes, transactionsBefore, error);
    }
  }

  /** Elements that lead to a chain can only be added once it is there. */
  #addChains(changes: readonly ElementChange[], options: NftablesOptions): void {
    for (const { new: value } of changes) {
      const name = value === undefined || value === '' ? undefined : chainOf({ value });
      if (name === undefined || this.#chains.has(name)) continue;
      this.#parts.driver.addChain(onDemandChain(name, options));
      this.#chains.add(name);
    }
  }

  #count(change: ElementChange): void {
    const by = (change.new === undefined ? 0 : 1) - (change.old === undefined ? 0 : 1);
    this.#counts.set(change.set, (this.#counts.get(change.set) ?? 0) + by);
  }
}

/** Whether an error says that an element as such cannot be, whatever else is in the table. */
function isRefusal(error: unknown): boolean {
  return ['EINVAL', 'ERANGE', 'EOPNOTSUPP', 'E2BIG', 'ENFILE', 'ENOSPC', 'UnreadableElement'].some(
    (code) => isErrno(error, code),
  );
}

/** The kernel's table is not what we took it for, or changed while we looked. */
export function isDisagreement(error: unknown): boolean {
  return ['ENOENT', 'EEXIST', 'EBUSY', 'EINTR', 'ENOTEMPTY'].some((code) => isErrno(error, code));
}
