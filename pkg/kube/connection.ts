/** One way to carry requests to a server: HTTP/1.1 with a pool of sockets, or one HTTP/2 session. */
import { AgentError } from '#pkg/errors/agent-error.ts';

export interface WireRequest {
  readonly method: string;
  /** Path and query, as they go on the wire. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
  readonly signal: AbortSignal;
}

export type ResponseHeaders = Readonly<Record<string, string | readonly string[] | undefined>>;

/** Takes an answer as it arrives. A throw aborts the exchange and becomes its error. */
export interface ResponseSink {
  onHead(status: number, headers: ResponseHeaders): void;
  onChunk(chunk: Buffer): void;
}

export interface Connection {
  readonly protocol: 'h1' | 'h2';
  /** Whether new requests may start on it. */
  readonly usable: boolean;
  /**
   * Resolves when the whole answer has arrived, whatever its status; rejects when the connection
   * or the signal ended it before. The sink is not called any more once this has settled.
   */
  exchange(request: WireRequest, sink: ResponseSink): Promise<void>;
  /** Starts no new request; what is open may finish. */
  drain(): void;
  /** Cuts off what was connected from this address of ours, which is gone: no answer can arrive. */
  dropFrom(localAddress: string): void;
  /** Cuts everything off. */
  destroy(): void;
}

/** TCP keep-alive probes start after this time without traffic. */
export const tcpKeepAliveMs = 30_000;

/** What ends the requests of {@link Connection.dropFrom}. */
export function addressGone(localAddress: string): AgentError {
  return new AgentError(
    'ConnectionLost',
    `Cannot reach the server from ${localAddress}: this host has lost the address`,
  );
}
