/** What tests give the nftables mode's writer. */
import type { Family } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { portKey, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { snapshot, type Cluster } from '#pkg/proxy/testdata/records.ts';

export const quietLog = { debug: nothing, info: nothing, warn: nothing, error: nothing };

export function nftablesTestOptions(options: Partial<NftablesOptions> = {}): NftablesOptions {
  return {
    family: 'ip',
    masqueradeBit: 14,
    masqueradeAll: false,
    localDetector: {
      kind: 'cluster-cidr',
      prefixes: [parsePrefix('10.1.0.0/16'), parsePrefix('fd00:10::/32')],
    },
    nodePortAddresses: 'all',
    nodeAddress: undefined,
    serviceCIDRs: [],
    counters: 'services',
    ...options,
  };
}

export function portsOf(cluster: Cluster, family: Family): Map<string, ProxiedPort> {
  return new Map(snapshot(cluster, family).ports.map((port) => [portKey(port), port]));
}

function nothing(): void {
  // These tests look at the kernel, not at the log.
}
