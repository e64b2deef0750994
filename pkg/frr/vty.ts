/** A session with one of FRR's daemons over its vty socket, as vtysh has one. */
import { connect, type Socket } from 'node:net';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { encodeVtyCommand, takeVtyReply, type VtyReply } from './vty-codec.ts';

/** Far above what a healthy daemon takes for any command we give. */
const timeoutMs = 10_000;

interface Waiting {
  /** How many answers. */
  readonly count: number;
  readonly replies: VtyReply[];
  readonly resolve: (replies: readonly VtyReply[]) => void;
  readonly reject: (cause: unknown) => void;
}

export class VtySession implements Disposable {
  readonly #socketPath: string;
  readonly #socket: Socket;
  #bytes: Buffer = Buffer.alloc(0);
  #waiting: Waiting | undefined;
  #isOpen = false;

  private constructor(socketPath: string, onEnd: () => void) {
    this.#socketPath = socketPath;
    this.#socket = connect(socketPath);
    this.#socket.on('connect', () => {
      this.#isOpen = true;
    });
    this.#socket.on('data', (part: Buffer) => this.#take(part));
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.on('close', () => {
      this.#fail(new Error('the connection ended before the answer'));
      if (!this.#isOpen) return;
      this.#isOpen = false;
      onEnd();
    });
  }

  /**
   * Opens a session that may change the daemon's configuration.
   *
   * @param onEnd the daemon ended it, as it does when it dies
   * @throws {AgentError} FrrUnreachable, with the errno of what failed as its cause
   */
  static async open(
    socketPath: string,
    onEnd: () => void,
    signal: AbortSignal,
  ): Promise<VtySession> {
    const session = new VtySession(socketPath, onEnd);
    try {
      await session.run('enable', signal);
    } catch (error) {
      session[Symbol.dispose]();
      throw error;
    }
    return session;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /**
   * Gives one command and waits for its answer. One at a time.
   *
   * @throws {AgentError} FrrUnreachable, with the errno of what failed as its cause
   */
  async run(command: string, signal: AbortSignal): Promise<VtyReply> {
    const [reply] = await this.runTogether([command], signal);
    // There are as many as there are commands.
    return reply as VtyReply;
  }

  /**
   * Gives some commands at once, which the daemon carries out before it does anything else, and waits for
   * the answer to each: after one that is refused the others are carried out all the same.
   *
   * @throws {AgentError} FrrUnreachable, with the errno of what failed as its cause
   */
  async runTogether(
    commands: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly VtyReply[]> {
    signal.throwIfAborted();
    const bytes = Buffer.concat(commands.map(encodeVtyCommand));
    const { promise, resolve, reject } = Promise.withResolvers<readonly VtyReply[]>();
    this.#waiting = { count: commands.length, replies: [], resolve, reject };
    const timer = setTimeout(() => this.#socket.destroy(new Error('no answer in time')), timeoutMs);
    const abort = (): void => void this.#socket.destroy(new Error('given up'));
    signal.addEventListener('abort', abort, { once: true });
    if (this.#socket.destroyed) this.#fail(new Error('the connection has ended'));
    else this.#socket.write(bytes);
    try {
      return await promise;
    } catch (cause) {
      signal.throwIfAborted();
      const what = `Cannot ask FRR at ${this.#socketPath} for "${commands.join('", "')}"`;
      throw new AgentError('FrrUnreachable', what, { cause });
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
    }
  }

  /** Ends the session without a word to who waits for its end. */
  [Symbol.dispose](): void {
    this.#isOpen = false;
    this.#socket.destroy();
  }

  #take(part: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, part]);
    const waiting = this.#waiting;
    for (;;) {
      const taken = takeVtyReply(this.#bytes);
      if (taken === undefined) return;
      this.#bytes = this.#bytes.subarray(taken.length);
      if (waiting === undefined || waiting.replies.push(taken.reply) < waiting.count) continue;
      this.#waiting = undefined;
      waiting.resolve(waiting.replies);
      return;
    }
  }

  #fail(cause: unknown): void {
    this.#waiting?.reject(cause);
    this.#waiting = undefined;
  }
}
