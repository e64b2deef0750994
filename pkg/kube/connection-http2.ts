/** HTTP/2: every request and watch of a server shares one TCP connection. */
import http2 from 'node:http2';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { addressGone, type Connection, type ResponseSink, type WireRequest } from './connection.ts';
import { readInTurns } from './read-in-turns.ts';

/** client-go's numbers (HTTP2_READ_IDLE_TIMEOUT_SECONDS, HTTP2_PING_TIMEOUT_SECONDS). */
const pingAfterMs = 30_000;
const pingTimeoutMs = 15_000;

/** The 64 KiB default makes a 57 MB list take nearly twice as long. */
const streamWindowBytes = 1024 * 1024;
const sessionWindowBytes = 8 * 1024 * 1024;

/**
 * A session over a connected TLS socket that agreed on "h2". After a GOAWAY it takes no new
 * requests (Node closes it, which leaves its open streams alone). A peer that vanished without a FIN is
 * noticed by PING: 30 s of silence, then 15 s for the answer, then every open request fails.
 */
export function createHttp2Connection(
  authority: string,
  socket: TLSSocket,
  clock: Clock,
): Connection {
  const session = http2.connect(authority, {
    createConnection: () => socket,
    settings: { enablePush: false, initialWindowSize: streamWindowBytes },
  });
  const closed = new AbortController();
  const connectedFrom = socket.localAddress;
  let lastReadAtMs = clock.monotonicMs();
  const onRead = (): void => {
    lastReadAtMs = clock.monotonicMs();
  };

  session.once('connect', () => {
    // Closed before it was open: setting the window would throw out of the event.
    if (!session.destroyed) session.setLocalWindowSize(sessionWindowBytes);
  });
  // Open streams get the error too and report it; without a listener it would end the process.
  session.on('error', () => undefined);
  session.once('close', () => closed.abort());
  void keepAlive(session, { clock, lastReadAtMs: () => lastReadAtMs, onRead }, closed.signal);

  return {
    protocol: 'h2',
    get usable() {
      return !session.closed && !session.destroyed;
    },
    exchange: (wire, sink) =>
      carry(session, wire, {
        onHead: (status, headers) => {
          onRead();
          sink.onHead(status, headers);
        },
        onChunk: (chunk) => {
          onRead();
          sink.onChunk(chunk);
        },
      }),
    drain: () => session.close(),
    dropFrom: (localAddress) => {
      if (localAddress === connectedFrom) session.destroy(addressGone(localAddress));
    },
    destroy: () => session.destroy(),
  };
}

async function keepAlive(
  session: http2.ClientHttp2Session,
  activity: {
    readonly clock: Clock;
    readonly lastReadAtMs: () => number;
    readonly onRead: () => void;
  },
  signal: AbortSignal,
): Promise<void> {
  const { clock, lastReadAtMs, onRead } = activity;
  while (!signal.aborted && !session.destroyed) {
    const idleMs = clock.monotonicMs() - lastReadAtMs();
    if (idleMs < pingAfterMs) {
      await sleepUnlessAborted(clock, pingAfterMs - idleMs, signal);
      continue;
    }
    const answer = new AbortController();
    session.ping((error) => {
      if (error === null) onRead();
      answer.abort();
    });
    await sleepUnlessAborted(clock, pingTimeoutMs, AbortSignal.any([signal, answer.signal]));
    if (!answer.signal.aborted && !signal.aborted) {
      session.destroy(
        new AgentError(
          'ConnectionLost',
          'Cannot reach the server: no answer to HTTP/2 PING in 15 s',
        ),
      );
    }
  }
}

async function sleepUnlessAborted(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  await clock.sleep(ms, signal).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

function carry(
  session: http2.ClientHttp2Session,
  wire: WireRequest,
  sink: ResponseSink,
): Promise<void> {
  return new Promise((resolve, reject) => {
    wire.signal.throwIfAborted();
    const stream = session.request(
      { ':method': wire.method, ':path': wire.path, ...wire.headers },
      { endStream: wire.body === undefined },
    );
    let settled = false;
    let ended = false;
    const settle = (error?: unknown): void => {
      if (settled) return;
      settled = true;
      wire.signal.removeEventListener('abort', onAbort);
      if (error === undefined) {
        resolve();
        return;
      }
      if (!stream.closed) stream.close(http2.constants.NGHTTP2_CANCEL);
      // Frees what is buffered of an answer that nobody reads any more.
      stream.destroy();
      reject(error);
    };
    const guarded = (work: () => void): void => {
      if (settled) return;
      try {
        work();
      } catch (error) {
        settle(error);
      }
    };
    const onAbort = (): void => settle(wire.signal.reason);
    const broken = (cause?: unknown): void =>
      settle(
        new AgentError('ConnectionLost', 'Cannot read the answer: the connection ended early', {
          cause,
          details: { rstCode: stream.rstCode },
        }),
      );

    stream.on('response', (headers) =>
      guarded(() => sink.onHead(headers[':status'] ?? 0, headers)),
    );
    readInTurns(stream, (chunk) => guarded(() => sink.onChunk(chunk)));
    stream.on('end', () => {
      ended = true;
    });
    stream.on('error', broken);
    // A stream may be reset, or lose its session, without an 'error'; and 'end' comes after a
    // reset too. Only both together prove that the body is whole.
    stream.on('close', () => {
      const whole = ended && !stream.aborted && stream.rstCode === http2.constants.NGHTTP2_NO_ERROR;
      if (whole) settle();
      else broken();
    });
    wire.signal.addEventListener('abort', onAbort, { once: true });
    if (wire.body !== undefined) stream.end(wire.body);
  });
}
