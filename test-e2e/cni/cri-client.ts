/** The part of the Container Runtime Interface the tests speak, over containerd's socket. */
import { credentials, loadPackageDefinition, type ServiceError } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { join } from 'node:path';

export interface PodSandboxConfig {
  readonly metadata: { readonly name: string; readonly uid: string; readonly namespace: string };
  readonly hostname?: string;
  readonly dnsConfig?: {
    readonly servers?: readonly string[];
    readonly searches?: readonly string[];
    readonly options?: readonly string[];
  };
  readonly portMappings?: readonly {
    /** 0 is TCP, 1 UDP, 2 SCTP. */
    readonly protocol: number;
    readonly containerPort: number;
    readonly hostPort: number;
    readonly hostIp?: string;
  }[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly linux: { readonly cgroupParent: string };
}

export interface PodSandboxStatus {
  readonly ready: boolean;
  readonly ips: readonly string[];
  /** Path of its network namespace, as the node sees it; "" when it has none. */
  readonly netns: string;
}

export interface CriClient extends Disposable {
  /** Whether pods can have a network; the runtime's reason when not. */
  networkReady(): Promise<true | string>;
  /** Returns the sandbox's ID. */
  runPodSandbox(
    config: PodSandboxConfig,
    options?: { readonly timeoutMs: number },
  ): Promise<string>;
  stopPodSandbox(id: string): Promise<void>;
  removePodSandbox(id: string): Promise<void>;
  podSandboxStatus(id: string): Promise<PodSandboxStatus>;
}

type Method = (
  request: object,
  options: { deadline: number },
  answer: (error: ServiceError | null, response: unknown) => void,
) => void;

interface StatusResponse {
  readonly status: {
    readonly conditions: readonly { type: string; status: boolean; message: string }[];
  };
}

interface PodSandboxStatusResponse {
  readonly status: {
    readonly state: number;
    readonly network: { readonly ip: string; readonly additionalIps: readonly { ip: string }[] };
  };
  readonly info: { readonly info: string };
}

interface SandboxInfo {
  readonly runtimeSpec: { linux: { namespaces: readonly { type: string; path?: string }[] } };
}

/** kubelet's. */
const defaultTimeoutMs = 120_000;

export function createCriClient(socketPath: string): CriClient {
  const definition = loadSync(join(import.meta.dirname, 'cri.proto'), { defaults: true });
  const { runtime } = loadPackageDefinition(definition) as unknown as {
    runtime: {
      v1: {
        RuntimeService: new (...args: unknown[]) => Record<string, Method> & { close(): void };
      };
    };
  };
  const service = new runtime.v1.RuntimeService(
    `unix://${socketPath}`,
    credentials.createInsecure(),
    // A daemon that takes long to start is found soon after: the pauses would double up to two minutes.
    { 'grpc.initial_reconnect_backoff_ms': 100, 'grpc.max_reconnect_backoff_ms': 1_000 },
  );
  const call = <T>(method: string, request: object, timeoutMs = defaultTimeoutMs): Promise<T> => {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    service[method]?.(request, { deadline: Date.now() + timeoutMs }, (error, response) =>
      error === null ? resolve(response as T) : reject(error),
    );
    return promise;
  };
  return {
    async networkReady() {
      const { status } = await call<StatusResponse>('status', {});
      const network = status.conditions.find(({ type }) => type === 'NetworkReady');
      return network?.status === true || (network?.message ?? 'no condition');
    },
    async runPodSandbox(config, options) {
      const response = await call<{ podSandboxId: string }>(
        'runPodSandbox',
        { config },
        options?.timeoutMs,
      );
      return response.podSandboxId;
    },
    stopPodSandbox: (podSandboxId) => call('stopPodSandbox', { podSandboxId }),
    removePodSandbox: (podSandboxId) => call('removePodSandbox', { podSandboxId }),
    async podSandboxStatus(podSandboxId) {
      const { status, info } = await call<PodSandboxStatusResponse>('podSandboxStatus', {
        podSandboxId,
        verbose: true,
      });
      const { runtimeSpec } = JSON.parse(info.info) as SandboxInfo;
      const ips = [status.network.ip, ...status.network.additionalIps.map(({ ip }) => ip)];
      return {
        ready: status.state === 0,
        ips: ips.filter((ip) => ip !== ''),
        netns: runtimeSpec.linux.namespaces.find(({ type }) => type === 'network')?.path ?? '',
      };
    },
    [Symbol.dispose]: () => service.close(),
  };
}
