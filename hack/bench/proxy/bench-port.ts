/** Service ports of the benchmarks that have no API server. */
import type { Endpoint } from '#pkg/proxy/endpoints.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';

/** A Service with these endpoints, "address:port". */
export function benchPort(
  name: string,
  at: { readonly ip: string; readonly port: number },
  targets: readonly string[],
): ProxiedPort {
  const all = targets.map((target): Endpoint => {
    const [address = '', port] = target.split(':');
    const state = { ready: true, serving: true, terminating: false, local: false };
    return { target, address, port: Number(port), ...state, zoneHints: [], nodeHints: [] };
  });
  return {
    family: 'ip',
    namespace: 'bench',
    name,
    portName: 'http',
    printName: `bench/${name}:http`,
    protocol: 'tcp',
    clusterIP: at.ip,
    port: at.port,
    nodePort: 0,
    externalIPs: [],
    loadBalancerIPs: [],
    sourceRanges: [],
    internalPolicy: 'Cluster',
    externalPolicy: 'Cluster',
    affinitySeconds: 0,
    healthCheckNodePort: 0,
    endpoints: { cluster: all, local: [], all, reachable: all, hasAny: true },
  };
}
