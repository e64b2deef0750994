/** Opens a connection to a server in the best protocol that it offers. */
import { isIP } from 'node:net';
import tls from 'node:tls';
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { ClusterConfig } from './cluster-config.ts';
import { type Connection, tcpKeepAliveMs } from './connection.ts';
import { createHttp1Connection } from './connection-http1.ts';
import { createHttp2Connection } from './connection-http2.ts';
import type { TlsMaterial } from './credentials.ts';

const connectTimeoutMs = 10_000;

/**
 * Connects by TLS and takes HTTP/2 or HTTP/1.1 as the server chooses by ALPN (RFC 7301); plain
 * http:// is HTTP/1.1. Rejects when the server is not there, is not who it should be, or has not
 * finished the handshake within 10 s.
 */
export async function connect(
  config: ClusterConfig,
  material: TlsMaterial,
  clock: Clock,
): Promise<Connection> {
  const url = new URL(config.server);
  const secure = url.protocol === 'https:';
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = Number(url.port === '' ? (secure ? 443 : 80) : url.port);
  if (!secure) return createHttp1Connection({ host, port }, undefined);

  const options = tlsOptions(config, material, host);
  const socket = await handshake({ ...options, host, port }, clock).catch((error: unknown) => {
    throw new AgentError('ConnectFailed', `Cannot connect to ${config.server}`, { cause: error });
  });
  if (socket.alpnProtocol === 'h2') return createHttp2Connection(url.origin, socket, clock);
  socket.destroy();
  return createHttp1Connection({ host, port }, options);
}

function tlsOptions(
  config: ClusterConfig,
  material: TlsMaterial,
  host: string,
): tls.ConnectionOptions {
  // SNI must not be an address (RFC 6066 §3); the certificate is still checked against the host.
  const serverName = config.serverName ?? (isIP(host) === 0 ? host : undefined);
  return {
    rejectUnauthorized: !config.insecure,
    minVersion: 'TLSv1.2',
    ...(serverName === undefined ? {} : { servername: serverName }),
    ...(material.ca === undefined ? {} : { ca: material.ca }),
    ...(material.certificate === undefined ? {} : { cert: material.certificate }),
    ...(material.key === undefined ? {} : { key: material.key }),
  };
}

async function handshake(
  options: tls.ConnectionOptions & { readonly host: string; readonly port: number },
  clock: Clock,
): Promise<tls.TLSSocket> {
  const done = new AbortController();
  const socket = tls.connect({ ...options, ALPNProtocols: ['h2', 'http/1.1'] });
  // HTTP/2 forbids this on its own handle of the socket, so it is set before.
  socket.setKeepAlive(true, tcpKeepAliveMs);
  const timeout = clock
    .sleep(connectTimeoutMs, done.signal)
    .then(() => socket.destroy(new AgentError('Timeout', 'no TLS handshake within 10 s')))
    .catch((error: unknown) => {
      if (!done.signal.aborted) throw error;
    });
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve);
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('the server closed the connection')));
    });
    return socket;
  } finally {
    done.abort();
    await timeout;
  }
}
