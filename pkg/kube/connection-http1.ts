/** HTTP/1.1: a socket per open watch. For plain http:// and servers behind old load balancers. */
import http from 'node:http';
import https from 'node:https';
import type { ConnectionOptions } from 'node:tls';
import { AgentError } from '#pkg/errors/agent-error.ts';
import {
  addressGone,
  type Connection,
  tcpKeepAliveMs,
  type ResponseSink,
  type WireRequest,
} from './connection.ts';
import { readInTurns } from './read-in-turns.ts';

/** `tls` undefined = plain text. Sockets open at the first request and are used again. */
export function createHttp1Connection(
  origin: { readonly host: string; readonly port: number },
  tls: ConnectionOptions | undefined,
): Connection {
  const pool = { keepAlive: true, keepAliveMsecs: tcpKeepAliveMs, maxFreeSockets: 2 };
  const agent = tls === undefined ? new http.Agent(pool) : new https.Agent({ ...tls, ...pool });
  let drained = false;

  function open(request: WireRequest): http.ClientRequest {
    const options = {
      agent,
      host: origin.host,
      port: origin.port,
      method: request.method,
      path: request.path,
      headers: request.headers,
    };
    return tls === undefined ? http.request(options) : https.request(options);
  }

  async function exchange(wire: WireRequest, sink: ResponseSink): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const request = open(wire);
      let answered = false;
      request.once('response', () => {
        answered = true;
      });
      try {
        return await carry(request, wire, sink);
      } catch (error) {
        // The server may close a kept socket while we send on it: not a failure, if nothing came
        // back and the request may be repeated (RFC 9110 §9.2.2).
        const stale = request.reusedSocket && !answered;
        const repeatable = wire.method === 'GET' && !wire.signal.aborted;
        if (!(stale && repeatable && attempt < 3)) throw error;
      }
    }
  }

  return {
    protocol: 'h1',
    get usable() {
      return !drained;
    },
    exchange,
    drain: () => {
      drained = true;
      // Frees the idle sockets; those of open requests close when they end.
      agent.maxFreeSockets = 0;
      for (const sockets of Object.values(agent.freeSockets)) {
        for (const socket of sockets ?? []) socket.destroy();
      }
    },
    dropFrom: (localAddress) => {
      const pools = [agent.sockets, agent.freeSockets].flatMap((pool) => Object.values(pool));
      for (const socket of pools.flatMap((sockets) => sockets ?? [])) {
        if (socket.localAddress === localAddress) socket.destroy(addressGone(localAddress));
      }
    },
    destroy: () => {
      drained = true;
      agent.destroy();
    },
  };
}

function carry(request: http.ClientRequest, wire: WireRequest, sink: ResponseSink): Promise<void> {
  return new Promise((resolve, reject) => {
    let settled = false;
    const settle = (error?: unknown): void => {
      if (settled) return;
      settled = true;
      wire.signal.removeEventListener('abort', onAbort);
      if (error === undefined) resolve();
      else {
        request.destroy();
        reject(error);
      }
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

    request.on('error', settle);
    request.on('response', (response) => {
      const broken = (cause?: unknown): void =>
        settle(
          new AgentError('ConnectionLost', 'Cannot read the answer: the connection ended early', {
            cause,
          }),
        );
      guarded(() => sink.onHead(response.statusCode ?? 0, response.headers));
      readInTurns(response, (chunk) => guarded(() => sink.onChunk(chunk)));
      response.on('error', broken);
      response.on('end', () => (response.complete ? settle() : broken()));
      response.on('close', () => broken());
    });
    if (wire.signal.aborted) {
      onAbort();
      return;
    }
    wire.signal.addEventListener('abort', onAbort, { once: true });
    request.end(wire.body);
  });
}
