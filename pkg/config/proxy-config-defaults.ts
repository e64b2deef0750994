/** kube-proxy's defaults: a file with every field, as `--write-config-to` and /configz show it. */
import { tryParseAddress } from '#pkg/ip/address.ts';
import { configApiVersion, configKind, type ProxyConfigFile } from './proxy-config-file.ts';

type Complete<T> = T extends readonly unknown[]
  ? T
  : T extends object
    ? { readonly [K in keyof T]-?: Complete<Exclude<T[K], undefined>> }
    : T;

/** Every field has a value; durations are in milliseconds. */
export type CompleteProxyConfig = Complete<ProxyConfigFile>;

/**
 * The file with defaults for what it leaves out. Empty texts and, for periods, zero count as left
 * out, as in kube-proxy; a zero that shall count (masqueradeBit, maxPerCore) is told from absence.
 */
export function completeProxyConfig(file: ProxyConfigFile): CompleteProxyConfig {
  const { clientConnection, conntrack, detectLocal, iptables, ipvs, logging, nftables } = file;
  const bindAddress = file.bindAddress || '0.0.0.0';
  const hosts = defaultHosts(bindAddress);
  return {
    apiVersion: configApiVersion,
    kind: configKind,
    featureGates: file.featureGates ?? {},
    clientConnection: {
      kubeconfig: clientConnection?.kubeconfig ?? '',
      acceptContentTypes: clientConnection?.acceptContentTypes ?? '',
      contentType: clientConnection?.contentType || 'application/vnd.kubernetes.protobuf',
      qps: clientConnection?.qps || 5,
      burst: clientConnection?.burst || 10,
    },
    logging: {
      format: logging?.format || 'text',
      flushFrequency: logging?.flushFrequency || 5_000,
      verbosity: logging?.verbosity ?? 0,
      vmodule: logging?.vmodule ?? [],
      options: {
        json: completeStream(logging?.options?.json),
        text: completeStream(logging?.options?.text),
      },
    },
    hostnameOverride: file.hostnameOverride ?? '',
    bindAddress,
    healthzBindAddress: withPort(file.healthzBindAddress || hosts.any, 10256),
    metricsBindAddress: withPort(file.metricsBindAddress || hosts.loopback, 10249),
    bindAddressHardFail: file.bindAddressHardFail ?? false,
    enableProfiling: file.enableProfiling ?? false,
    showHiddenMetricsForVersion: file.showHiddenMetricsForVersion ?? '',
    mode: file.mode || 'iptables',
    iptables: {
      masqueradeBit: iptables?.masqueradeBit ?? 14,
      masqueradeAll: iptables?.masqueradeAll ?? false,
      localhostNodePorts: iptables?.localhostNodePorts ?? true,
      layout: iptables?.layout || 'compatible',
      syncPeriod: iptables?.syncPeriod || 30_000,
      minSyncPeriod: iptables?.minSyncPeriod || 1_000,
    },
    ipvs: {
      syncPeriod: ipvs?.syncPeriod || 30_000,
      minSyncPeriod: ipvs?.minSyncPeriod ?? 0,
      scheduler: ipvs?.scheduler ?? '',
      schedulerFlags: ipvs?.schedulerFlags ?? [],
      excludeCIDRs: ipvs?.excludeCIDRs ?? [],
      strictARP: ipvs?.strictARP ?? false,
      tcpTimeout: ipvs?.tcpTimeout ?? 0,
      tcpFinTimeout: ipvs?.tcpFinTimeout ?? 0,
      udpTimeout: ipvs?.udpTimeout ?? 0,
    },
    nftables: {
      masqueradeBit: nftables?.masqueradeBit ?? 14,
      masqueradeAll: nftables?.masqueradeAll ?? false,
      counters: nftables?.counters || 'services',
      serviceMetrics: nftables?.serviceMetrics ?? 0,
      traffic: nftables?.traffic ?? false,
      syncPeriod: nftables?.syncPeriod || 30_000,
      minSyncPeriod: nftables?.minSyncPeriod || 1_000,
    },
    winkernel: {
      networkName: file.winkernel?.networkName ?? '',
      sourceVip: file.winkernel?.sourceVip ?? '',
      enableDSR: file.winkernel?.enableDSR ?? false,
      rootHnsEndpointName: file.winkernel?.rootHnsEndpointName ?? '',
      forwardHealthCheckVip: file.winkernel?.forwardHealthCheckVip ?? false,
    },
    detectLocalMode: file.detectLocalMode || 'ClusterCIDR',
    detectLocal: {
      bridgeInterface: detectLocal?.bridgeInterface ?? '',
      interfaceNamePrefix: detectLocal?.interfaceNamePrefix ?? '',
    },
    clusterCIDR: file.clusterCIDR ?? '',
    nodePortAddresses: file.nodePortAddresses ?? [],
    oomScoreAdj: file.oomScoreAdj ?? -999,
    conntrack: {
      maxPerCore: conntrack?.maxPerCore ?? 32_768,
      min: conntrack?.min ?? 131_072,
      tcpEstablishedTimeout: conntrack?.tcpEstablishedTimeout ?? 24 * 3_600_000,
      tcpCloseWaitTimeout: conntrack?.tcpCloseWaitTimeout ?? 3_600_000,
      tcpBeLiberal: conntrack?.tcpBeLiberal ?? false,
      udpTimeout: conntrack?.udpTimeout ?? 0,
      udpStreamTimeout: conntrack?.udpStreamTimeout ?? 0,
    },
    configSyncPeriod: file.configSyncPeriod || 15 * 60_000,
    portRange: file.portRange ?? '',
    windowsRunAsService: file.windowsRunAsService ?? false,
  };
}

/**
 * An address that has no port gets one. What is no address stays as it is: to name it is the
 * validation's task.
 */
export function withPort(text: string, port: number): string {
  const address = tryParseAddress(/^\[([^\]]+)\]$/.exec(text)?.[1] ?? text);
  if (address === undefined) return text;
  return text.includes(':') && !text.startsWith('[') ? `[${text}]:${port}` : `${text}:${port}`;
}

/** The servers listen in the family of bindAddress, which itself is not listened on. */
function defaultHosts(bindAddress: string): { readonly any: string; readonly loopback: string } {
  return bindAddress.includes(':')
    ? { any: '[::]', loopback: '[::1]' }
    : { any: '0.0.0.0', loopback: '127.0.0.1' };
}

interface Stream {
  readonly infoBufferSize: string;
  readonly splitStream: boolean;
}

function completeStream(stream: Partial<Undefinable<Stream>> | undefined): Stream {
  return {
    infoBufferSize: stream?.infoBufferSize ?? '0',
    splitStream: stream?.splitStream ?? false,
  };
}

type Undefinable<T> = { readonly [K in keyof T]: T[K] | undefined };
