/** Requests at an interval over one connection: shows a gap that single calls would step over. */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { performance } from 'node:perf_hooks';
import type { StreamOutcome, StreamRequest } from './agent-protocol.ts';
import { readLines } from './lines.ts';

/** How long answers may still arrive after the last request, on a machine under load. */
const graceMs = 20_000;
const firstAnswerMs = 20_000;

interface Channel {
  send(text: string): void;
  close(): void;
}

/** Calls `onStart` with the first answer; runs until `enough` aborts or the connection breaks. */
export function stream(
  request: StreamRequest,
  enough: AbortSignal,
  onStart: () => void,
): Promise<StreamOutcome> {
  return new Promise((resolve) => {
    let sent = 0;
    let answered = 0;
    let lastMs = performance.now();
    let longestGapMs = 0;
    const onAnswer = (): void => {
      const nowMs = performance.now();
      if (answered === 0) started();
      else longestGapMs = Math.max(longestGapMs, nowMs - lastMs);
      lastMs = nowMs;
      answered += 1;
      if (enough.aborted && answered === sent) finish();
    };
    const started = (): void => {
      clearTimeout(patience);
      onStart();
    };
    let isOver = false;
    const finish = (error?: string): void => {
      // A connection may break and end, and that the asker has enough may come after that.
      if (isOver) return;
      isOver = true;
      clearInterval(timer);
      clearTimeout(patience);
      enough.removeEventListener('abort', stop);
      channel.close();
      const outcome = { sent, answered, longestGapMs: Math.round(longestGapMs) };
      resolve(error === undefined ? outcome : { ...outcome, error });
    };
    const open = request.protocol === 'tcp' ? openTcp : openUdp;
    const channel = open(request, onAnswer, finish);
    const timer = setInterval(() => {
      sent += 1;
      channel.send(String(sent));
    }, request.intervalMs);
    let patience = setTimeout(() => finish('no answer to the first request'), firstAnswerMs);
    const stop = (): void => {
      clearInterval(timer);
      if (answered === sent) finish();
      else patience = setTimeout(finish, graceMs);
    };
    if (enough.aborted) stop();
    else enough.addEventListener('abort', stop, { once: true });
  });
}

function openTcp(
  { address, port }: StreamRequest,
  onAnswer: () => void,
  onBroken: (error: string) => void,
): Channel {
  const socket = connect({ host: address, port, noDelay: true });
  socket.on('error', (error) => onBroken(error.message));
  socket.on('end', () => onBroken('the server closed the connection'));
  readLines(socket, onAnswer);
  return { send: (text) => socket.write(`${text}\n`), close: () => socket.destroy() };
}

function openUdp(
  { address, port }: StreamRequest,
  onAnswer: () => void,
  onBroken: (error: string) => void,
): Channel {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', onAnswer);
  socket.on('error', (error) => onBroken(error.message));
  const connected = new Promise<void>((resolve) => {
    // On failure the callback has the error, which @types/node leaves out.
    socket.connect(port, address, (error?: Error) => (error ? onBroken(error.message) : resolve()));
  });
  return {
    send: (text) => void connected.then(() => socket.send(text, () => undefined)),
    close: () => socket.close(),
  };
}
