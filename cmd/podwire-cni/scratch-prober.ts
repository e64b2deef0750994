/**
 * Connects from within network namespaces, by a thread of the test: where starting a program takes a
 * second, as in the virtual machine, a probe by programs takes several.
 */
import { Worker } from 'node:worker_threads';

export interface ProbeRequest {
  readonly id: number;
  /** A namespace's path. */
  readonly netns: string;
  /** An address; "%eth0" after a link-local one. */
  readonly host: string;
  readonly port: number;
  readonly timeoutMs: number;
}

export interface ProbeResult {
  readonly id: number;
  readonly outcome: string;
}

const waiting = new Map<number, (outcome: string) => void>();
let worker: Worker | undefined;
let lastId = 0;

/** What a TCP connection comes to: CONNECTED, TIMEOUT, or an error's code: ECONNREFUSED. */
export function probe(request: Omit<ProbeRequest, 'id'>): Promise<string> {
  worker ??= start();
  const id = (lastId += 1);
  const { promise, resolve } = Promise.withResolvers<string>();
  waiting.set(id, resolve);
  worker.ref();
  worker.postMessage({ id, ...request } satisfies ProbeRequest);
  return promise;
}

function start(): Worker {
  const started = new Worker(new URL('./scratch-prober-worker.ts', import.meta.url));
  started.on('message', ({ id, outcome }: ProbeResult) => {
    waiting.get(id)?.(outcome);
    waiting.delete(id);
    if (waiting.size === 0) started.unref();
  });
  started.on('error', (error) => {
    for (const resolve of waiting.values()) resolve(String(error));
    waiting.clear();
    worker = undefined;
  });
  return started;
}
