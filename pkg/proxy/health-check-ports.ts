/**
 * Health check node ports: where a load balancer asks a node whether to send it the traffic of a
 * Service with externalTrafficPolicy Local (KEP-1669: a node whose endpoints are all ending says no,
 * and still serves what arrives).
 */
import { objectKey } from '#pkg/kube/types.ts';
import type { ProxiedPort } from './proxied-port.ts';

/** What one Service asks for in one family. */
export interface HealthCheckPort {
  readonly namespace: string;
  readonly name: string;
  readonly port: number;
  /** Distinct addresses of ready endpoints on this node. */
  readonly localEndpoints: number;
}

/** By "namespace/name". */
export function healthCheckPorts(
  ports: Iterable<ProxiedPort>,
): ReadonlyMap<string, HealthCheckPort> {
  const found = new Map<string, { readonly of: ProxiedPort; readonly addresses: Set<string> }>();
  for (const port of ports) {
    if (port.healthCheckNodePort === 0) continue;
    const key = objectKey(port);
    const { addresses } = found.get(key) ?? { addresses: new Set<string>() };
    for (const endpoint of port.endpoints.all) {
      if (endpoint.local && endpoint.ready) addresses.add(endpoint.address);
    }
    found.set(key, { of: port, addresses });
  }
  return new Map(
    [...found].map(([key, { of, addresses }]) => {
      const { healthCheckNodePort: port, name, namespace } = of;
      return [key, { namespace, name, port, localEndpoints: addresses.size }];
    }),
  );
}

export interface HealthCheckAnswer {
  readonly status: 200 | 503;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** What kube-proxy answers, to the byte (pkg/proxy/healthcheck/service_health.go). */
export function healthCheckAnswer(
  { localEndpoints, name, namespace }: HealthCheckPort,
  serviceProxyHealthy: boolean,
): HealthCheckAnswer {
  const body = { service: { namespace, name }, localEndpoints, serviceProxyHealthy };
  return {
    status: localEndpoints > 0 && serviceProxyHealthy ? 200 : 503,
    headers: {
      'Content-Type': 'application/json',
      'X-Content-Type-Options': 'nosniff',
      'X-Load-Balancing-Endpoint-Weight': String(localEndpoints),
    },
    body: JSON.stringify(body, null, '\t'),
  };
}

/** One socket to listen on, and which Service it answers for. */
export interface HealthCheckListener {
  /** Canonical; the family's unspecified address for all. */
  readonly address: string;
  readonly asks: HealthCheckPort;
}

/**
 * The sockets of one family, by address and port. API servers give each Service a number of its
 * own; where one did not, the first in order of names has it.
 */
export function healthCheckListeners(
  asked: ReadonlyMap<string, HealthCheckPort>,
  addresses: readonly string[],
): ReadonlyMap<string, HealthCheckListener> {
  const listeners = new Map<string, HealthCheckListener>();
  for (const [, asks] of [...asked].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    for (const address of addresses) {
      const key = `${address} ${asks.port}`;
      if (!listeners.has(key)) listeners.set(key, { address, asks });
    }
  }
  return listeners;
}
