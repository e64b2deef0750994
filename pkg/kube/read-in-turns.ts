/** Takes in a body without keeping everything else waiting, however fast it arrives. */
import { setImmediate } from 'node:timers';

/** The part of a readable stream that this needs. */
export interface TurnedStream {
  on(event: 'data', listener: (chunk: Buffer) => void): unknown;
  pause(): unknown;
  resume(): unknown;
}

/**
 * Others get a turn when this much work has been done. One read from a socket that never runs dry
 * is up to 2 MB in a row (libuv), which is some 60 ms of a list.
 */
const turnMs = 10;

/** Hands each chunk to `take`, with a turn of the event loop in between when that takes long. */
export function readInTurns(
  stream: TurnedStream,
  take: (chunk: Buffer) => void,
  nowMs: () => number = () => performance.now(),
): void {
  let workedMs = 0;
  stream.on('data', (chunk) => {
    const startedMs = nowMs();
    take(chunk);
    workedMs += nowMs() - startedMs;
    if (workedMs < turnMs) return;
    workedMs = 0;
    stream.pause();
    setImmediate(() => stream.resume());
  });
}
