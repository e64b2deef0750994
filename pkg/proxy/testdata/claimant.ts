/** Services that claim one external address. */
import { service, slice, type Cluster } from './records.ts';

export const claimedAddress = '203.0.113.9';

/** One of them, with a port without a name; `n` tells its cluster address and its affinity in seconds. */
export function claimant(
  name: string,
  n: number,
  endpoints: readonly string[],
): Required<Pick<Cluster, 'services' | 'slices'>> {
  const ports = [{ name: '', protocol: 'TCP', port: 80, nodePort: 0 }] as const;
  const fields = { clusterIPs: [`172.30.1.${n}`], externalIPs: [claimedAddress] };
  return {
    services: [service(name, { ...fields, ports, affinitySeconds: n })],
    slices: [slice(name, endpoints, { ports })],
  };
}
