/** Watches as answers: one JSON line an event, until the time is up or the client gone. */
import { ApiError, expired } from '#pkg/embedded-api/api-error.ts';
import type { Core } from '#pkg/embedded-api/core.ts';
import type { Selection } from '#pkg/embedded-api/list.ts';
import type { KindInfo } from '#pkg/embedded-api/kinds.ts';
import {
  bookmark,
  openWatch,
  type Watch,
  type WatchEvent,
  type WatchRequest,
} from '#pkg/embedded-api/watch.ts';
import type { Exchange } from './exchange.ts';
import { represent, representationOf, type Representation } from './representation.ts';

/** Text gathered before it is written: small enough to let other requests in between. */
const pieceChars = 64 * 1024;

/** A client that lets this much pile up is cut off, and begins again from what it has. */
const maxPendingBytes = 16 * 1024 * 1024;

/** kube-apiserver's --min-request-timeout: watches without a timeout end after 30 to 60 minutes. */
const defaultTimeoutMs = 30 * 60_000;

export interface WatchSettings {
  readonly core: Core;
  readonly bookmarkIntervalMs: number;
  /** How a watch from a compacted revision is refused. */
  readonly goneAs: 'event' | 'http';
  readonly watches: Set<OpenWatch>;
}

/** A watch under way, for tests that disturb it. */
export interface OpenWatch {
  readonly selection: Selection;
  /** Ends the answer as if its time were up. */
  end(): void;
  /** Sends 410 Gone in the stream and ends it: what compaction does to a watch that lags. */
  expire(): void;
  /** Cuts the connection without a word. */
  cut(): void;
  /** Stops sending, without ending: a network that swallows packets. */
  stall(): void;
}

/**
 * Answers a watch; resolves when it is over.
 *
 * @throws {ApiError} Expired before anything was sent, where `goneAs` is 'http'
 */
export async function sendWatch(
  exchange: Exchange,
  selection: Selection,
  request: WatchRequest,
  settings: WatchSettings,
): Promise<void> {
  const { core, watches } = settings;
  const stream = new WatchStream(exchange, selection.kind, core);
  const begun = begin(stream, selection, request, settings);
  if (begun === undefined) return;
  const open: OpenWatch = {
    selection,
    end: () => {
      if (request.allowBookmarks) stream.send(bookmark(selection.kind, core.storage.revision));
      stream.end();
    },
    expire: () => {
      stream.send(goneEvent(core));
      stream.end();
    },
    cut: () => exchange.cut(),
    stall: () => stream.stall(),
  };
  watches.add(open);
  try {
    await stream.sendAll(begun.before);
    const intervalMs = request.allowBookmarks ? settings.bookmarkIntervalMs : Infinity;
    const timeoutMs = Math.min((request.timeoutSeconds ?? Infinity) * 1000, defaultTimeoutMs);
    for (let leftMs = timeoutMs; leftMs > 0 && !stream.ended.aborted;) {
      const pauseMs = Math.min(leftMs, intervalMs);
      await pause(core, pauseMs, stream.ended);
      leftMs -= pauseMs;
      if (request.allowBookmarks) stream.send(bookmark(selection.kind, core.storage.revision));
    }
  } finally {
    begun.close();
    watches.delete(open);
    stream.finish();
  }
}

/** Sends the head and begins; undefined when the refusal was sent as an event already. */
function begin(
  stream: WatchStream,
  selection: Selection,
  request: WatchRequest,
  { core, goneAs }: WatchSettings,
): Watch | undefined {
  try {
    const watch = openWatch(core.storage, selection, request, (event) => stream.send(event));
    stream.start();
    return watch;
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 'Expired' || goneAs === 'http') throw error;
    stream.start();
    stream.goLive();
    stream.send({ type: 'ERROR', object: error.status });
    stream.finish();
    return undefined;
  }
}

/** The lines of one watch: first what came before, at the client's pace, then live changes. */
class WatchStream {
  readonly #exchange: Exchange;
  readonly #kind: KindInfo;
  readonly #core: Core;
  readonly #form: Representation;
  readonly #over = new AbortController();
  /** Changes that came while the state was being sent; undefined from then on. */
  #backlog: WatchEvent[] | undefined = [];
  #isStalled = false;

  constructor(exchange: Exchange, kind: KindInfo, core: Core) {
    this.#exchange = exchange;
    this.#kind = kind;
    this.#core = core;
    this.#form = representationOf(exchange);
  }

  /** Aborts when the watch is over, whoever ended it. */
  get ended(): AbortSignal {
    return AbortSignal.any([this.#over.signal, this.#exchange.ended]);
  }

  start(): void {
    this.#exchange.startStream({ 'content-type': 'application/json' });
  }

  async sendAll(events: Iterable<WatchEvent>): Promise<void> {
    let text = '';
    for (const event of events) {
      text += this.#line(event);
      if (text.length < pieceChars) continue;
      await this.#exchange.write(text);
      if (this.ended.aborted || this.#isStalled) return;
      text = '';
    }
    if (text !== '') await this.#exchange.write(text);
    this.goLive();
  }

  goLive(): void {
    const waiting = this.#backlog ?? [];
    this.#backlog = undefined;
    for (const event of waiting) this.send(event);
  }

  send(event: WatchEvent): void {
    if (this.#isStalled || this.#over.signal.aborted) return;
    if (this.#backlog !== undefined) {
      this.#backlog.push(event);
      return;
    }
    this.#exchange.writeNow(this.#line(event));
    if (this.#exchange.pendingBytes > maxPendingBytes) this.end();
  }

  end(): void {
    this.#over.abort();
  }

  stall(): void {
    this.#isStalled = true;
  }

  /** Ends the answer, unless it is stalled: then the client has to find out by itself. */
  finish(): void {
    if (!this.#isStalled) this.#exchange.end();
  }

  #line(event: WatchEvent): string {
    const object =
      event.type === 'BOOKMARK' || event.type === 'ERROR'
        ? event.object
        : represent(this.#kind, event.object, this.#form, this.#core.clock.now());
    return `${JSON.stringify({ type: event.type, object })}\n`;
  }
}

function goneEvent(core: Core): WatchEvent {
  const gone = expired(`too old resource version (${core.storage.compactedRevision})`);
  return { type: 'ERROR', object: gone.status };
}

/** Sleeps; an abort ends it early without an error. */
async function pause(core: Core, ms: number, signal: AbortSignal): Promise<void> {
  await core.clock.sleep(ms, signal).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}
