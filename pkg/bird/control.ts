/**
 * BIRD's control socket (BIRD 2 Programmer's Documentation, "Command line interface"): a line goes
 * in, and lines with four-digit codes come back; the last one has a space after its code.
 */
import { connect } from 'node:net';
import { AgentError } from '#pkg/errors/agent-error.ts';

export interface BirdReply {
  /** 0xxx: done; 8xxx: refused; 9xxx: not understood. The last line's. */
  readonly code: number;
  /** What it said, without codes. */
  readonly lines: readonly string[];
}

/** Far above what a healthy BIRD takes for any command we give. */
const timeoutMs = 10_000;

/**
 * Gives BIRD one command and waits for its answer.
 *
 * @throws {AgentError} BirdUnreachable, with the errno of what failed as its cause
 */
export async function birdCommand(
  socketPath: string,
  command: string,
  signal: AbortSignal,
): Promise<BirdReply> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<BirdReply>();
  const socket = connect(socketPath);
  const timer = setTimeout(() => socket.destroy(new Error('no answer in time')), timeoutMs);
  const abort = (): void => void socket.destroy(new Error('given up'));
  signal.addEventListener('abort', abort, { once: true });
  let text = '';
  let greeted = false;
  socket.setEncoding('utf8');
  socket.on('data', (part: string) => {
    text += part;
    let reply = takeReply(text);
    if (reply !== undefined && !greeted) {
      greeted = true;
      text = text.slice(reply.length);
      socket.write(`${command}\n`);
      reply = takeReply(text);
    }
    if (reply === undefined) return;
    resolve(parseReply(text.slice(0, reply.length)));
    socket.end();
  });
  socket.on('error', reject);
  socket.on('close', () => reject(new Error('the connection ended before the answer')));
  try {
    return await promise;
  } catch (cause) {
    signal.throwIfAborted();
    throw new AgentError('BirdUnreachable', `Cannot ask BIRD at ${socketPath} to ${command}`, {
      cause,
    });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
    socket.destroy();
  }
}

/** The text of the first whole reply; undefined while its last line is missing. */
function takeReply(text: string): { readonly length: number } | undefined {
  const end = /^\d{4} .*\n/m.exec(text);
  return end === null ? undefined : { length: end.index + end[0].length };
}

function parseReply(text: string): BirdReply {
  const lines = text.split('\n').filter((line) => line !== '');
  const code = Number(lines.at(-1)?.slice(0, 4));
  // Lines of one code after the first have a space in its place.
  return { code, lines: lines.map((line) => line.replace(/^(?:\d{4}[- ]| )/, '')) };
}
