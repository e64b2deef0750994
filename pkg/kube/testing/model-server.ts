/** A server that follows the API's rules for one kind, changes at random and fails at random. */
import type { Exchange, ScriptedServer } from './scripted-server.ts';

export interface ModelObject {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: number;
  readonly value: string;
}

interface LoggedEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: ModelObject;
}

interface OpenWatch {
  readonly exchange: Exchange;
  sentVersion: number;
  stalled: boolean;
}

export type Fault =
  | 'refusal'
  | 'broken list'
  | 'broken line'
  | 'cut'
  | 'end'
  | 'stall'
  | 'duplicate'
  | 'error event'
  | 'compaction';

/** How likely each fault is at each step; none after `heal`. */
const faultRate = 0.08;

export class ModelServer {
  readonly objects = new Map<string, ModelObject>();
  /** How often each fault happened. */
  readonly faults = new Map<Fault, number>();
  readonly #server: ScriptedServer;
  readonly #random: () => number;
  readonly #streamsLists: boolean;
  readonly #watches = new Set<OpenWatch>();
  #log: LoggedEvent[] = [];
  #version = 1;
  #compacted = 0;
  #uids = 0;
  #healthy = false;

  constructor(server: ScriptedServer, random: () => number, streamsLists: boolean) {
    this.#server = server;
    this.#random = random;
    this.#streamsLists = streamsLists;
    void this.#serve();
  }

  /** One random change, or several, and what open watches see of it. */
  step(): void {
    for (let i = this.#pick(4); i >= 0; i--) this.#change();
    if (this.#fails('compaction', faultRate / 2)) {
      this.#compacted = this.#version;
      this.#log = [];
    }
    for (const watch of this.#watches) this.#send(watch);
  }

  /** No faults from now on; streams that are stalled stay so until the client gives up on them. */
  heal(): void {
    this.#healthy = true;
  }

  async #serve(): Promise<void> {
    for (;;) this.#answer(await this.#server.next());
  }

  #answer(exchange: Exchange): void {
    if (this.#fails('refusal')) {
      const code = [500, 503, 429, 401, 410][this.#pick(5)] ?? 500;
      exchange.json(code, { kind: 'Status', code }, code === 429 ? { 'retry-after': '1' } : {});
    } else if (exchange.query['watch'] === 'true') this.#watch(exchange);
    else this.#list(exchange);
  }

  #list(exchange: Exchange): void {
    const items = [...this.objects.values()].map(toRaw);
    const list = JSON.stringify({ metadata: { resourceVersion: String(this.#version) }, items });
    if (this.#fails('broken list', faultRate * 3)) {
      exchange.open();
      exchange.raw(list.slice(0, this.#pick(list.length)));
      if (this.#random() < 0.5) exchange.end();
      else exchange.cut();
      return;
    }
    exchange.json(200, JSON.parse(list));
  }

  #watch(exchange: Exchange): void {
    const initial = exchange.query['sendInitialEvents'] === 'true';
    if (initial && !this.#streamsLists) {
      exchange.json(422, { kind: 'Status', code: 422 });
      return;
    }
    const from = Number(exchange.query['resourceVersion'] ?? 0);
    exchange.open();
    if (!initial && from < this.#compacted) {
      exchange.event('ERROR', { kind: 'Status', code: 410, reason: 'Expired' });
      exchange.end();
      return;
    }
    const watch = { exchange, sentVersion: initial ? this.#version : from, stalled: false };
    if (initial) {
      for (const object of this.objects.values()) exchange.event('ADDED', toRaw(object));
      exchange.event('BOOKMARK', bookmark(this.#version, true));
    }
    this.#watches.add(watch);
    this.#send(watch);
  }

  #send(watch: OpenWatch): void {
    const { exchange } = watch;
    if (exchange.closed) this.#watches.delete(watch);
    if (watch.stalled || exchange.closed) return;
    for (const { type, object } of this.#log) {
      if (object.resourceVersion <= watch.sentVersion) continue;
      if (this.#breaks(watch)) return;
      const line = `${JSON.stringify({ type, object: toRaw(object) })}\n`;
      const cut = this.#pick(line.length);
      exchange.raw(line.slice(0, cut));
      if (this.#fails('broken line', faultRate / 4)) {
        this.#watches.delete(watch);
        exchange.end();
        return;
      }
      exchange.raw(line.slice(cut));
      if (this.#fails('duplicate')) exchange.raw(line);
      watch.sentVersion = object.resourceVersion;
    }
    if (this.#random() < 0.1) exchange.event('BOOKMARK', bookmark(watch.sentVersion, false));
  }

  /** Whether the stream brings no more. */
  #breaks(watch: OpenWatch): boolean {
    if (this.#fails('stall', faultRate / 4)) {
      watch.stalled = true;
      return true;
    }
    const { exchange } = watch;
    if (this.#fails('cut', faultRate / 2)) exchange.cut();
    else if (this.#fails('end', faultRate / 2)) exchange.end();
    else if (this.#fails('error event', faultRate / 2)) {
      exchange.event('ERROR', { kind: 'Status', code: this.#random() < 0.5 ? 500 : 410 });
      exchange.end();
    } else return false;
    this.#watches.delete(watch);
    return true;
  }

  #change(): void {
    const name = `object-${this.#pick(20)}`;
    const old = this.objects.get(name);
    const remove = old !== undefined && this.#random() < 0.4;
    this.#version += 1;
    if (remove) {
      this.objects.delete(name);
      this.#log.push({ type: 'DELETED', object: { ...old, resourceVersion: this.#version } });
      if (this.#random() < 0.5) return;
      this.#version += 1;
    }
    const isNew = old === undefined || remove;
    this.#uids += isNew ? 1 : 0;
    const uid = isNew ? `uid-${this.#uids}` : old.uid;
    const value = `v${this.#version}`;
    const object = { name, uid, resourceVersion: this.#version, value };
    this.objects.set(name, object);
    this.#log.push({ type: isNew ? 'ADDED' : 'MODIFIED', object });
  }

  #fails(fault: Fault, rate = faultRate): boolean {
    if (this.#healthy || this.#random() >= rate) return false;
    this.faults.set(fault, (this.faults.get(fault) ?? 0) + 1);
    return true;
  }

  #pick(below: number): number {
    return Math.floor(this.#random() * below);
  }
}

function toRaw({ name, uid, resourceVersion, value }: ModelObject): object {
  return { metadata: { name, uid, resourceVersion: String(resourceVersion) }, value };
}

function bookmark(resourceVersion: number, end: boolean): object {
  const annotations = end ? { 'k8s.io/initial-events-end': 'true' } : {};
  return { metadata: { resourceVersion: String(resourceVersion), annotations } };
}
