/** A configuration as text: the file of `--write-config-to`. */
import { stringify } from 'yaml';
import { formatDuration } from './duration.ts';
import type { CompleteProxyConfig } from './proxy-config-defaults.ts';

/**
 * The file as kube-proxy writes it: keys sorted, durations as Go prints them, empty lists as null.
 * Our own keys appear only where they are not at their default, so that kube-proxy reads it too.
 */
export function renderProxyConfig(config: CompleteProxyConfig): string {
  return stringify(proxyConfigFields(config), { sortMapEntries: true, lineWidth: 0 });
}

/** The same as plain data; absent where the format leaves out what is empty. */
export function proxyConfigFields(config: CompleteProxyConfig): Record<string, unknown> {
  const { conntrack, iptables, ipvs, logging, nftables } = config;
  const { layout, ...ofKubeProxy } = iptables;
  // Only where they are not as by default: kube-proxy knows none of them.
  const { schedulerFlags, ...ipvsOfKubeProxy } = ipvs;
  const { counters, serviceMetrics, traffic, ...nftablesOfKubeProxy } = nftables;
  return {
    ...config,
    featureGates: Object.keys(config.featureGates).length === 0 ? undefined : config.featureGates,
    logging: {
      format: logging.format,
      flushFrequency: formatDuration(logging.flushFrequency),
      verbosity: logging.verbosity,
      vmodule: logging.vmodule.length === 0 ? undefined : logging.vmodule,
      options: { json: stream(logging.options.json), text: stream(logging.options.text) },
    },
    iptables: {
      ...ofKubeProxy,
      ...(layout === 'compatible' ? {} : { layout }),
      ...periods(iptables),
    },
    ipvs: {
      ...ipvsOfKubeProxy,
      ...(schedulerFlags.length === 0 ? {} : { schedulerFlags }),
      ...periods(ipvs),
      excludeCIDRs: list(ipvs.excludeCIDRs),
      tcpTimeout: formatDuration(ipvs.tcpTimeout),
      tcpFinTimeout: formatDuration(ipvs.tcpFinTimeout),
      udpTimeout: formatDuration(ipvs.udpTimeout),
    },
    nftables: {
      ...nftablesOfKubeProxy,
      ...(counters === 'services' ? {} : { counters }),
      ...(serviceMetrics === 0 ? {} : { serviceMetrics }),
      ...(traffic ? { traffic } : {}),
      ...periods(nftables),
    },
    nodePortAddresses: list(config.nodePortAddresses),
    conntrack: {
      ...conntrack,
      tcpEstablishedTimeout: formatDuration(conntrack.tcpEstablishedTimeout),
      tcpCloseWaitTimeout: formatDuration(conntrack.tcpCloseWaitTimeout),
      udpTimeout: formatDuration(conntrack.udpTimeout),
      udpStreamTimeout: formatDuration(conntrack.udpStreamTimeout),
    },
    configSyncPeriod: formatDuration(config.configSyncPeriod),
    windowsRunAsService: config.windowsRunAsService || undefined,
  };
}

function periods(of: { readonly syncPeriod: number; readonly minSyncPeriod: number }): {
  readonly syncPeriod: string;
  readonly minSyncPeriod: string;
} {
  return {
    syncPeriod: formatDuration(of.syncPeriod),
    minSyncPeriod: formatDuration(of.minSyncPeriod),
  };
}

function stream(of: CompleteProxyConfig['logging']['options']['json']): Record<string, unknown> {
  return {
    infoBufferSize: of.infoBufferSize,
    ...(of.splitStream ? { splitStream: true } : {}),
  };
}

function list(entries: readonly string[]): readonly string[] | null {
  return entries.length === 0 ? null : entries;
}
