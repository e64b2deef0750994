/** What kube-proxy's /configz answers: the configuration in its internal shape, under Go's names. */
import { formatDuration } from './duration.ts';
import type { CompleteProxyConfig } from './proxy-config-defaults.ts';
import { proxyConfigFields } from './proxy-config-render.ts';

/**
 * The document by its API group. The internal shape (pkg/proxy/apis/config/types.go) has what all
 * modes share at its top: masqueradeAll, the periods, detectLocal with the cluster's CIDRs.
 */
export function proxyConfigz(config: CompleteProxyConfig): Record<string, unknown> {
  const { conntrack, clientConnection, iptables, ipvs, nftables, winkernel } = config;
  const inUse = config.mode === 'ipvs' ? ipvs : config.mode === 'nftables' ? nftables : iptables;
  const { logging } = proxyConfigFields(config);
  const internal = {
    Linux: {
      Conntrack: {
        MaxPerCore: conntrack.maxPerCore,
        Min: conntrack.min,
        TCPEstablishedTimeout: formatDuration(conntrack.tcpEstablishedTimeout),
        TCPCloseWaitTimeout: formatDuration(conntrack.tcpCloseWaitTimeout),
        TCPBeLiberal: conntrack.tcpBeLiberal,
        UDPTimeout: formatDuration(conntrack.udpTimeout),
        UDPStreamTimeout: formatDuration(conntrack.udpStreamTimeout),
      },
      MasqueradeAll: config.mode === 'nftables' ? nftables.masqueradeAll : iptables.masqueradeAll,
      OOMScoreAdj: config.oomScoreAdj,
    },
    Windows: { RunAsService: config.windowsRunAsService },
    FeatureGates: config.featureGates,
    ClientConnection: {
      Kubeconfig: clientConnection.kubeconfig,
      AcceptContentTypes: clientConnection.acceptContentTypes,
      ContentType: clientConnection.contentType,
      QPS: clientConnection.qps,
      Burst: clientConnection.burst,
    },
    Logging: logging,
    HostnameOverride: config.hostnameOverride,
    BindAddress: config.bindAddress,
    HealthzBindAddress: config.healthzBindAddress,
    MetricsBindAddress: config.metricsBindAddress,
    BindAddressHardFail: config.bindAddressHardFail,
    EnableProfiling: config.enableProfiling,
    ShowHiddenMetricsForVersion: config.showHiddenMetricsForVersion,
    Mode: config.mode,
    IPTables: {
      MasqueradeBit: iptables.masqueradeBit,
      LocalhostNodePorts: iptables.localhostNodePorts,
    },
    IPVS: {
      Scheduler: ipvs.scheduler,
      ExcludeCIDRs: orNull(ipvs.excludeCIDRs),
      StrictARP: ipvs.strictARP,
      TCPTimeout: formatDuration(ipvs.tcpTimeout),
      TCPFinTimeout: formatDuration(ipvs.tcpFinTimeout),
      UDPTimeout: formatDuration(ipvs.udpTimeout),
    },
    Winkernel: {
      NetworkName: winkernel.networkName,
      SourceVip: winkernel.sourceVip,
      EnableDSR: winkernel.enableDSR,
      RootHnsEndpointName: winkernel.rootHnsEndpointName,
      ForwardHealthCheckVip: winkernel.forwardHealthCheckVip,
    },
    NFTables: { MasqueradeBit: nftables.masqueradeBit },
    DetectLocalMode: config.detectLocalMode,
    DetectLocal: {
      BridgeInterface: config.detectLocal.bridgeInterface,
      ClusterCIDRs: orNull(config.clusterCIDR === '' ? [] : config.clusterCIDR.split(',')),
      InterfaceNamePrefix: config.detectLocal.interfaceNamePrefix,
    },
    NodePortAddresses: orNull(config.nodePortAddresses),
    SyncPeriod: formatDuration(inUse.syncPeriod),
    MinSyncPeriod: formatDuration(inUse.minSyncPeriod),
    ConfigSyncPeriod: formatDuration(config.configSyncPeriod),
  };
  return { 'kubeproxy.config.k8s.io': internal };
}

/** Go encodes an empty list that was never made as null. */
function orNull(list: readonly string[]): readonly string[] | null {
  return list.length === 0 ? null : list;
}
