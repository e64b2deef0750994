/**
 * Writes one family's Services as elements of its table. Reads the kernel at the start, after
 * options changed and when in doubt; otherwise each port's change is a few elements, from memory.
 */
import { isDeepStrictEqual } from 'node:util';
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { renderSteps, renderTable } from '#pkg/nftables/render.ts';
import { onDemandChain } from '#pkg/proxy/nftables-affinity.ts';
import { proxySkeleton } from '#pkg/proxy/nftables-base.ts';
import { Changes, ElementBook, type ElementChange } from '#pkg/proxy/nftables-book.ts';
import { allKeptEndpoints, keptEndpoints } from '#pkg/proxy/nftables-clients.ts';
import { chainOf } from '#pkg/proxy/nftables-elements.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { reconcile } from '#pkg/proxy/nftables-reconcile.ts';
import { fillTable } from '#pkg/proxy/nftables-ruleset.ts';
import { proxySetNames } from '#pkg/proxy/nftables-sets.ts';
import { compareStructure, onDemandChainsOf } from '#pkg/proxy/nftables-structure.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { RememberedClients } from './nftables-clients.ts';
import type { NftablesDriver } from './nftables-driver.ts';
import { breathe, inSlices, sliceMs } from '#pkg/reconcile/slices.ts';
import type { FamilyWriter, Wanted, WriteReport } from './proxy-mode.ts';

export interface NftablesWriterParts {
  readonly family: Family;
  readonly driver: NftablesDriver;
  readonly options: (node: NodeRecord | undefined) => NftablesOptions;
  readonly log: Logger;
}

/** Elements of a transaction: the kernel takes some milliseconds, during which nothing else runs. */
const elementsPerTransaction = 1_000;

/** A table that somebody changes while it is read and written is read again, so often. */
const attempts = 5;

export interface NftablesWriter extends FamilyWriter {
  /** What the kernel's table should look like; undefined while that is being changed or not known. */
  readonly expected: ExpectedTable | undefined;
  /** Looks again for clients of endpoints that went with the last write. */
  forgetAgain(): Promise<void>;
}

/** What is known of the table without its elements. */
export interface ExpectedTable {
  readonly skeleton: ReturnType<typeof proxySkeleton>;
  readonly counts: ReadonlyMap<string, number>;
}

export function createNftablesWriter(parts: NftablesWriterParts): NftablesWriter {
  return new Writer(parts);
}

class Writer implements NftablesWriter {
  readonly #parts: NftablesWriterParts;
  #book: ElementBook | undefined;
  #chains = new Set<string>();
  readonly #counts = new Map<string, number>();
  #doubted = false;
  #busy = false;
  readonly #clients: RememberedClients;

  constructor(parts: NftablesWriterParts) {
    this.#parts = parts;
    this.#clients = new RememberedClients(parts.driver);
  }

  get expected(): ExpectedTable | undefined {
    if (this.#book === undefined || this.#busy || this.#doubted) return undefined;
    return {
      skeleton: proxySkeleton(this.#book.options, this.#chains),
      counts: this.#counts,
    };
  }

  doubt(): void {
    this.#doubted = true;
  }

  async write(want: Wanted, signal: AbortSignal): Promise<WriteReport> {
    const options = this.#parts.options(want.node);
    const book = this.#book;
    this.#busy = true;
    await this.#clients.isIdle;
    // Until it has ended well, what the book says is not what the kernel has.
    this.#book = undefined;
    try {
      if (book !== undefined && !this.#doubted && want.changed !== 'all') {
        if (isDeepStrictEqual(options, book.options)) {
          try {
            const written = await this.#update(book, want.ports, { keys: want.changed, signal });
            this.#book = book;
            return { kind: 'partial', written };
          } catch (err) {
            signal.throwIfAborted();
            if (!isDisagreement(err)) throw err;
            const { family } = this.#parts;
            this.#parts.log.warn({ family, err }, 'The nftables table is not as it was left');
          }
        }
      }
      return { kind: 'full', written: await this.#rewrite(options, want.ports, signal) };
    } finally {
      this.#busy = false;
    }
  }

  async forgetAgain(): Promise<void> {
    if (!this.#busy) await this.#clients.forgetAgain();
  }

  /** Writes the ports that changed, and looks at nothing else. */
  async #update(
    book: ElementBook,
    ports: ReadonlyMap<string, ProxiedPort>,
    { keys, signal }: { readonly keys: ReadonlySet<string>; readonly signal: AbortSignal },
  ): Promise<number> {
    const kept = new Map<string, ReadonlySet<string>>();
    const units = function* (): Generator<readonly ElementChange[]> {
      for (const key of keys) {
        const now = ports.get(key);
        for (const entry of keptEndpoints(book.get(key), now, book.options)) kept.set(...entry);
        yield book.put(key, now);
      }
    };
    const written = await this.#apply(units(), book.options, signal);
    await this.#clients.forget(kept);
    return written;
  }

  /** Compares everything and writes what differs; again, if somebody else writes meanwhile. */
  async #rewrite(
    options: NftablesOptions,
    ports: ReadonlyMap<string, ProxiedPort>,
    signal: AbortSignal,
  ): Promise<number> {
    for (let attempt = 1; ; attempt++) {
      this.#doubted = false;
      try {
        const book = new ElementBook(options);
        const written = await this.#reconcile(book, ports, signal);
        await this.#clients.forgetOthers(allKeptEndpoints(ports.values(), options));
        this.#book = book;
        return written;
      } catch (error) {
        signal.throwIfAborted();
        if (attempt === attempts || !isDisagreement(error)) throw error;
      }
    }
  }

  async #reconcile(
    book: ElementBook,
    ports: ReadonlyMap<string, ProxiedPort>,
    signal: AbortSignal,
  ): Promise<number> {
    const { driver } = this.#parts;
    const found = driver.structure();
    this.#chains = new Set(onDemandChainsOf(found));
    const skeleton = proxySkeleton(book.options, this.#chains);
    if (found === undefined) {
      await driver.load(renderTable(proxySkeleton(book.options, [])), signal);
    } else if (compareStructure(skeleton, found).kind === 'replace') {
      return await this.#replace(book, ports, signal);
    }
    const have = found === undefined ? new Map() : await this.#contents(found.sets);
    for (const set of proxySetNames) this.#counts.set(set, have.get(set)?.size ?? 0);
    return await this.#apply(reconcile(book, ports, have), book.options, signal);
  }

  /** The old table serves until the new one is complete: one transaction, however long. */
  async #replace(
    book: ElementBook,
    ports: ReadonlyMap<string, ProxiedPort>,
    signal: AbortSignal,
  ): Promise<number> {
    const contents = new Map<string, Map<string, string>>();
    const later: ElementChange[] = [];
    let written = 0;
    await inSlices(reconcile(book, ports, new Map()), (unit) => {
      for (const change of unit) {
        const { set, key, new: value } = change;
        if (value === undefined) continue;
        // nft cannot read the chains that these lead to.
        if (chainOf({ value }) !== undefined) {
          later.push(change);
          continue;
        }
        let elements = contents.get(set);
        if (elements === undefined) contents.set(set, (elements = new Map<string, string>()));
        elements.set(key, value);
        written += 1;
      }
    });
    this.#chains = new Set();
    const table = fillTable(proxySkeleton(book.options, []), contents);
    await this.#parts.driver.load(renderSteps([{ op: 'replaceTable', table }]), signal);
    for (const set of proxySetNames) this.#counts.set(set, contents.get(set)?.size ?? 0);
    return written + (await this.#apply([later], book.options, signal));
  }

  async #contents(
    counts: ReadonlyMap<string, number | undefined>,
  ): Promise<Map<string, Map<string, string>>> {
    const contents = new Map<string, Map<string, string>>();
    for (const set of proxySetNames) {
      const elements = new Map<string, string>();
      contents.set(set, elements);
      if (counts.get(set) === 0) continue;
      await inSlices(this.#parts.driver.read(set), (part) => {
        for (const { key, value } of part) elements.set(key, value ?? '');
      });
    }
    return contents;
  }

  /** Sends units, as many as fit, in one transaction each time. */
  async #apply(
    units: Iterable<readonly ElementChange[]>,
    options: NftablesOptions,
    signal: AbortSignal,
  ): Promise<number> {
    let pending = new Changes();
    let written = 0;
    const sent = { transactions: 0, messages: 0, bytes: 0, kernelMs: 0 };
    const send = (): void => {
      const changes = pending.list();
      pending = new Changes();
      if (changes.length === 0) return;
      signal.throwIfAborted();
      this.#addChains(changes, options);
      const startedMs = performance.now();
      const { bytes, messages } = this.#parts.driver.edit(changes);
      sent.kernelMs += performance.now() - startedMs;
      sent.transactions += 1;
      sent.messages += messages;
      sent.bytes += bytes;
      written += changes.length;
      for (const change of changes) this.#count(change);
    };
    let sentAtMs = performance.now();
    for (const unit of units) {
      for (const change of unit) pending.put(change);
      const isFull = pending.size >= elementsPerTransaction;
      if (isFull) send();
      if (isFull || performance.now() - sentAtMs > sliceMs) {
        await breathe();
        sentAtMs = performance.now();
      }
    }
    send();
    const { family, log } = this.#parts;
    if (written > 0) log.debug({ family, written, ...sent }, 'Elements written');
    return written;
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

/** The kernel's table is not what we took it for, or changed while we looked. */
function isDisagreement(error: unknown): boolean {
  return ['ENOENT', 'EEXIST', 'EBUSY', 'EINTR', 'ENOTEMPTY'].some((code) => isErrno(error, code));
}
