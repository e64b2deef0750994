/** Talks to `agent.mjs`, a process inside a namespace that connects and serves. */
import { execa } from 'execa';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';

export interface AskRequest {
  readonly host: string;
  readonly port: number;
  /** One after the other; 1 unless said otherwise. */
  readonly count?: number;
  readonly protocol?: 'tcp' | 'udp';
  /** One connection from each of these addresses of the namespace, instead of `count`. */
  readonly sources?: readonly string[];
  /** 20 s when undefined: less for who expects silence, or asks again. */
  readonly timeoutMs?: number | undefined;
}

export interface Agent extends AsyncDisposable {
  /** "name client-address" as the server says it, or an error code, "TIMEOUT" among them. */
  ask(request: AskRequest): Promise<string[]>;
  /** Opens a connection on which something goes forth and back until it is closed. */
  openStream(key: string, to: { host: string; port: number }): Promise<{ localPort?: number; error?: string }>;
  /**
   * Closes it once it broke or got so many more answers, five unless said otherwise. `error` is "STALLED"
   * when no answer came for twenty seconds, or as long as one has patience.
   */
  closeStream(key: string, patienceMs?: number, answers?: number): Promise<{ answered: number; error?: string; longestMs: number }>;
  /** Connects anew all the time until it is stopped. */
  startConnecting(key: string, to: { host: string; port: number; intervalMs?: number }): Promise<void>;
  stopConnecting(
    key: string,
  ): Promise<{ count: number; failures: string[]; answers: Record<string, number> }>;
}

/** Resolves when it is ready to be asked, and serves if told to. */
export async function startAgent(
  netns: ScratchNetns,
  server?: { readonly name: string; readonly port: number },
): Promise<Agent> {
  const script = `${import.meta.dirname}/agent.mjs`;
  const args = server === undefined ? [] : [server.name, String(server.port)];
  const child = execa('nsenter', [`--net=${netns.path}`, process.execPath, script, ...args], {
    reject: false,
    stdin: 'pipe',
    buffer: false,
  });
  const waiting = new Map<number, (result: unknown) => void>();
  const ready = new Promise<unknown>((resolve) => waiting.set(0, resolve));
  const gone = child.then(({ exitCode }) => {
    throw new Error(`The agent in ${netns.name} is gone, exit code ${exitCode}`);
  });
  gone.catch(() => undefined);
  const reading = (async () => {
    for await (const line of child) {
      const { id, result } = JSON.parse(line) as { id: number; result: unknown };
      waiting.get(id)?.(result);
      waiting.delete(id);
    }
  })();
  reading.catch(() => undefined);
  let lastId = 0;
  const request = async <T>(op: string, fields: object): Promise<T> => {
    const id = (lastId += 1);
    const answer = new Promise<unknown>((resolve) => waiting.set(id, resolve));
    child.stdin.write(`${JSON.stringify({ id, op, ...fields })}\n`);
    return (await Promise.race([answer, gone])) as T;
  };
  await Promise.race([ready, gone]);
  return {
    ask: (fields) => request('ask', fields),
    openStream: (key, to) => request('openStream', { key, ...to }),
    closeStream: (key, patienceMs, answers) => request('closeStream', { key, patienceMs, answers }),
    startConnecting: (key, to) => request('startConnecting', { key, ...to }),
    stopConnecting: (key) => request('stopConnecting', { key }),
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await gone.catch(() => undefined);
    },
  };
}
