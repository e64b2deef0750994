/**
 * Writes one family's Services as elements of its table. Reads the kernel at the start, after
 * options changed and when in doubt; otherwise each port's change is a few elements, from memory.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '#pkg/clock/clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { renderTable } from '#pkg/nftables/render.ts';
import { proxySkeleton } from '#pkg/proxy/nftables-base.ts';
import { ElementBook, type ElementChange } from '#pkg/proxy/nftables-book.ts';
import { allKeptEndpoints, keptEndpoints } from '#pkg/proxy/nftables-clients.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { reconcile, type PortSource } from '#pkg/proxy/nftables-reconcile.ts';
import { proxySetNames } from '#pkg/proxy/nftables-sets.ts';
import { compareStructure, onDemandChainsOf } from '#pkg/proxy/nftables-structure.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { RememberedClients } from './nftables-clients.ts';
import type { NftablesDriver } from './nftables-driver.ts';
import { isDisagreement, NftablesEditor, RefusedElements } from './nftables-editor.ts';
import { ParkedPorts } from './parked-ports.ts';
import {
  isScriptRefusal,
  refusedPorts,
  RefusedReplacement,
  replacementOf,
} from './nftables-replacement.ts';
import { writeWithoutRefused } from './nftables-refused.ts';
import { inSlices } from '#pkg/reconcile/slices.ts';
import type { FamilyWriter, Wanted, WriteReport } from './proxy-mode.ts';

export interface NftablesWriterParts {
  readonly family: Family;
  readonly driver: NftablesDriver;
  readonly options: (node: NodeRecord | undefined) => NftablesOptions;
  /** A port the kernel refuses was left out. */
  readonly onParked: (port: ProxiedPort, error: unknown) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What a write is about. */
interface Target {
  readonly options: NftablesOptions;
  readonly ports: PortSource;
  readonly signal: AbortSignal;
}

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
  readonly #editor: NftablesEditor;
  #doubted = false;
  #busy = false;
  readonly #clients: RememberedClients;
  readonly #parked: ParkedPorts;

  constructor(parts: NftablesWriterParts) {
    this.#parts = parts;
    this.#editor = new NftablesEditor(parts);
    this.#parked = new ParkedPorts(parts.clock, parts.onParked);
    this.#clients = new RememberedClients(parts.driver);
  }

  get expected(): ExpectedTable | undefined {
    if (this.#book === undefined || this.#busy || this.#doubted) return undefined;
    return {
      skeleton: proxySkeleton(this.#book.options, this.#editor.chains),
      counts: this.#editor.counts,
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
    const released = this.#parked.release(want.changed);
    const keys = want.changed === 'all' ? want.changed : new Set([...want.changed, ...released]);
    const before = new Map(
      keys === 'all' ? [] : [...keys].map((key) => [key, book?.get(key)] as const),
    );
    const ports: PortSource = {
      get: (key) => (this.#parked.has(key) ? undefined : want.ports.get(key)),
      keys: () => want.ports.keys(),
    };
    const target = { options, ports, signal };
    // Until it has ended well, what the book says is not what the kernel has.
    this.#book = undefined;
    try {
      return await this.#attempt(book, target, keys);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof RefusedElements)) throw error;
      return { kind: 'full', written: await this.#writeWithoutRefused(error, target, before) };
    } finally {
      this.#busy = false;
    }
  }

  async #attempt(
    book: ElementBook | undefined,
    target: Target,
    keys: ReadonlySet<string> | 'all',
  ): Promise<WriteReport> {
    if (book !== undefined && !this.#doubted && keys !== 'all') {
      if (isDeepStrictEqual(target.options, book.options)) {
        try {
          return { kind: 'partial', written: await this.#update(book, target, keys) };
        } catch (err) {
          target.signal.throwIfAborted();
          if (!isDisagreement(err)) throw err;
          const { family } = this.#parts;
          this.#parts.log.warn({ family, err }, 'The nftables table is not as it was left');
        }
      }
    }
    return { kind: 'full', written: await this.#rewrite(target) };
  }

  async #writeWithoutRefused(
    refused: RefusedElements,
    target: Target,
    before: ReadonlyMap<string, ProxiedPort | undefined>,
  ): Promise<number> {
    const { family, log } = this.#parts;
    let book: ElementBook | undefined;
    const { guilty, written } = await writeWithoutRefused(refused, {
      ...target,
      before,
      rewrite: async (ports) => {
        const count = await this.#rewrite({ ...target, ports });
        book = this.#book;
        return count;
      },
      update: async (keys, ports) => {
        return await this.#update(
          book ?? new ElementBook(target.options),
          { ...target, ports },
          keys,
        );
      },
      undo: (keys, ports) => {
        for (const key of keys) book?.put(key, ports.get(key));
      },
      onSuspects: (err, ports) => log.warn({ err, family, ports }, 'Looking for what is refused'),
    });
    for (const [key, error] of guilty) {
      const why = error instanceof Error ? (error.cause ?? error) : error;
      this.#parked.park(key, target.ports.get(key), why);
    }
    return written;
  }

  async forgetAgain(): Promise<void> {
    if (!this.#busy) await this.#clients.forgetAgain();
  }

  /** Writes the ports that changed, and looks at nothing else. */
  async #update(
    book: ElementBook,
    { ports, signal }: Target,
    keys: ReadonlySet<string>,
  ): Promise<number> {
    this.#book = undefined;
    const kept = new Map<string, ReadonlySet<string>>();
    const units = function* (): Generator<readonly ElementChange[]> {
      for (const key of keys) {
        const now = ports.get(key);
        for (const entry of keptEndpoints(book.get(key), now, book.options)) kept.set(...entry);
        yield book.put(key, now);
      }
    };
    const written = await this.#editor.send(units(), book.options, signal);
    await this.#clients.forget(kept);
    this.#book = book;
    return written;
  }

  /** Compares everything and writes what differs; again, if somebody else writes meanwhile. */
  async #rewrite({ options, ports, signal }: Target): Promise<number> {
    this.#book = undefined;
    for (let attempt = 1; ; attempt++) {
      this.#doubted = false;
      try {
        const book = new ElementBook(options);
        const written = await this.#reconcile(book, ports, signal);
        await this.#clients.forgetOthers(allKeptEndpoints(portsOf(ports), options));
        this.#book = book;
        return written;
      } catch (error) {
        signal.throwIfAborted();
        if (attempt === attempts) throw error;
        if (error instanceof RefusedReplacement) {
          await this.#parkRefused(error.cause, { options, ports, signal });
        } else if (!isDisagreement(error)) throw error;
      }
    }
  }

  /** Nothing was written: the ports that keep all others from it are left out from here on. */
  async #parkRefused(refusal: unknown, { options, ports, signal }: Target): Promise<void> {
    const { driver, family, log } = this.#parts;
    log.warn({ err: refusal, family }, 'The table is refused, looking for the port');
    const check = (script: string): Promise<void> => driver.check(script, signal);
    const guilty = await refusedPorts(refusal, { options, ports }, check);
    for (const [key, error] of guilty) this.#parked.park(key, ports.get(key), error);
  }

  async #reconcile(book: ElementBook, ports: PortSource, signal: AbortSignal): Promise<number> {
    const { driver } = this.#parts;
    const found = driver.structure();
    const chains = onDemandChainsOf(found);
    const skeleton = proxySkeleton(book.options, chains);
    if (found === undefined) {
      await driver.load(renderTable(skeleton), signal);
    } else if (compareStructure(skeleton, found).kind === 'replace') {
      return await this.#replace(book, ports, signal);
    }
    const have = found === undefined ? new Map() : await this.#contents(found.sets);
    this.#editor.begin(chains, have);
    return await this.#editor.send(reconcile(book, ports, have), book.options, signal);
  }

  /** The old table serves until the new one is complete: one transaction, however long. */
  async #replace(book: ElementBook, ports: PortSource, signal: AbortSignal): Promise<number> {
    const { contents, later, script, written } = await replacementOf(book, ports);
    try {
      await this.#parts.driver.load(script, signal);
    } catch (error) {
      throw isScriptRefusal(error) ? new RefusedReplacement(error) : error;
    }
    this.#editor.begin([], contents);
    return written + (await this.#editor.send([later], book.options, signal));
  }

  async #contents(
    counts: ReadonlyMap<string, number | undefined>,
  ): Promise<Map<string, Map<string, string>>> {
    const contents = new Map<string, Map<string, string>>();
    for (const set of proxySetNames) {
      const elements = new Map<string, string>();
      contents.set(set, elements);
      if (!counts.has(set) || counts.get(set) === 0) continue;
      await inSlices(this.#parts.driver.read(set), (part) => {
        for (const { key, value } of part) elements.set(key, value ?? '');
      });
    }
    return contents;
  }
}

function* portsOf(source: PortSource): Generator<ProxiedPort> {
  for (const key of source.keys()) {
    const port = source.get(key);
    if (port !== undefined) yield port;
  }
}
