/** gRPC as etcd's client needs it: channels to each endpoint, calls with a limit, streams. */
import { readFile } from 'node:fs/promises';
import {
  credentials,
  loadPackageDefinition,
  status as grpcStatus,
  type ChannelCredentials,
  type ClientDuplexStream,
  type Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { etcdServices } from './service-definition.ts';

/** PEM files: the authority of the server's certificate, and our own certificate and key. */
export interface CertificateFiles {
  readonly caFile?: string | undefined;
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;
}

/** A round of the daemon must not wait for longer. */
export const answerWithinMs = 5_000;

type Stub = Readonly<
  Record<
    string,
    (
      request: object,
      metadata: Metadata,
      options: { readonly deadline: number },
      answer: (error: ServiceError | null, response: never) => void,
    ) => { cancel(): void }
  >
> & { close(): void };

type StreamStub = Readonly<
  Record<
    string,
    (
      metadata: Metadata,
      options?: { readonly deadline: number },
    ) => ClientDuplexStream<object, unknown>
  >
> & { close(): void };

export interface Endpoint {
  readonly KV: Stub;
  readonly Lease: Stub;
  readonly LeaseStream: StreamStub;
  readonly Watch: StreamStub;
  readonly Auth: Stub;
}

type ServiceClass = new (
  address: string,
  credentials: ChannelCredentials,
  options: object,
) => Stub & StreamStub;

/** Connects at the first call. */
export function openEndpoints(
  endpoints: readonly string[],
  secure: ChannelCredentials,
): readonly Endpoint[] {
  const { etcdserverpb } = loadPackageDefinition(
    fromJSON(etcdServices, { longs: String, defaults: true, oneofs: true, enums: String }),
  ) as unknown as { etcdserverpb: Record<'KV' | 'Lease' | 'Watch' | 'Auth', ServiceClass> };
  return endpoints.map((endpoint) => {
    const make = (service: ServiceClass): Stub & StreamStub =>
      new service(target(endpoint), isSecure(endpoint) ? secure : credentials.createInsecure(), {
        // A watch is silent for hours: this tells a quiet server from one that is gone.
        'grpc.keepalive_time_ms': 10_000,
        'grpc.keepalive_timeout_ms': 5_000,
        'grpc.max_reconnect_backoff_ms': 2_000,
        'grpc.max_receive_message_length': 64 * 1024 * 1024,
      });
    const lease = make(etcdserverpb.Lease);
    return {
      KV: make(etcdserverpb.KV),
      Lease: lease,
      LeaseStream: lease,
      Watch: make(etcdserverpb.Watch),
      Auth: make(etcdserverpb.Auth),
    };
  });
}

/** Ends the connections of all four services; calls under way fail. */
export function closeEndpoint({ KV, Lease, Watch, Auth }: Endpoint): void {
  for (const stub of [KV, Lease, Watch, Auth]) stub.close();
}

export interface Call {
  readonly method: string;
  readonly request: object;
  readonly metadata: Metadata;
}

/** Makes one call, for at most as long as a round of the daemon may wait. */
export function unary<T>(stub: Stub, call: Call, signal: AbortSignal): Promise<T> {
  const { method, request, metadata } = call;
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const options = { deadline: Date.now() + answerWithinMs };
  const running = stub[method]?.(request, metadata, options, (error, response) =>
    error === null ? resolve(response) : reject(error),
  );
  const stop = (): void => running?.cancel();
  signal.addEventListener('abort', stop, { once: true });
  return promise.finally(() => signal.removeEventListener('abort', stop));
}

/** Sends one message and hands on what comes back, until the caller has enough. */
export async function* messages<T>(
  stream: ClientDuplexStream<object, unknown>,
  request: object,
  signal: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  const stop = (): void => stream.cancel();
  signal.addEventListener('abort', stop, { once: true });
  // Cancelling tells of itself after the reader has gone.
  stream.on('error', () => undefined);
  try {
    signal.throwIfAborted();
    stream.write(request);
    for await (const message of stream) yield message as T;
  } finally {
    signal.removeEventListener('abort', stop);
    stream.cancel();
  }
}

/** Whether the error is an answer with this status code of gRPC. */
export function isGrpc(error: unknown, code: number): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

/** Whether another member of etcd may answer what this one did not. */
export function isUnavailable(error: unknown): boolean {
  return isGrpc(error, grpcStatus.UNAVAILABLE) || isGrpc(error, grpcStatus.DEADLINE_EXCEEDED);
}

function isSecure(endpoint: string): boolean {
  return endpoint.startsWith('https:');
}

/** As gRPC names it: `HOST:PORT` or `unix:PATH`. */
function target(endpoint: string): string {
  const rest = endpoint.replace(/^https?:\/\//, '').replace(/\/$/, '');
  return rest.startsWith('unix:') ? `unix:${rest.replace(/^unix:(?:\/\/)?/, '')}` : `dns:${rest}`;
}

/**
 * TLS by the files that are given; without a CA the system's are trusted.
 *
 * @throws {AgentError} InvalidConfig when one cannot be read
 */
export async function secureCredentials(options: CertificateFiles): Promise<ChannelCredentials> {
  const [ca, cert, key] = await Promise.all(
    [options.caFile, options.certFile, options.keyFile].map(readPem),
  );
  return credentials.createSsl(ca, key, cert);
}

async function readPem(path: string | undefined): Promise<Buffer | null> {
  if (path === undefined) return null;
  return readFile(path).catch((cause: unknown) => {
    throw new AgentError('InvalidConfig', `Cannot read ${path} for etcd`, { cause });
  });
}
