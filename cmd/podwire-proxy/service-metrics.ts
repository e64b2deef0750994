/** What is counted of Services, as Prometheus text. */
import type { Traffic } from '#pkg/conntrack/flow-tally.ts';
import type { FrontendCounts } from './proxy-mode.ts';
import type { EndpointStatus, ServiceStatus } from './service-status.ts';

/** A sample: labels without braces, and its number. */
type Sample = readonly [labels: string, value: number];

/**
 * The busiest Service ports, at most `limit`, and of those the busiest endpoints, at most as many:
 * a limit cuts what hardly anybody uses. What is not counted is not told.
 *
 * @param overflows of {@link ServiceTraffic}; undefined where traffic is not counted
 */
export function serviceMetricsText(
  all: readonly ServiceStatus[],
  { limit, overflows }: { readonly limit: number; readonly overflows: number | undefined },
): string {
  const services = all.toSorted((a, b) => serviceWeight(b) - serviceWeight(a)).slice(0, limit);
  const told = services.map((of) => ({ ...of, labels: serviceLabels(of) }));
  const counted = told.flatMap(({ counts, labels }) =>
    counts === null ? [] : [{ counts, labels }],
  );
  const counts = (name: string, help: string, value: (counts: FrontendCounts) => number): string =>
    series(
      `podwire_service_${name}`,
      help,
      counted.map(({ counts: of, labels }) => [labels, value(of)]),
    );
  const endpoints = told
    .flatMap((service) => service.endpoints.map((endpoint) => ({ service, endpoint })))
    .filter(({ endpoint }) => endpoint.connections !== null || endpoint.traffic !== null);
  const toldEndpoints = endpoints
    .toSorted((a, b) => endpointWeight(b.endpoint) - endpointWeight(a.endpoint))
    .slice(0, limit)
    .map(({ endpoint, service }) => {
      return { ...endpoint, labels: `${service.labels},endpoint="${endpoint.target}"` };
    });
  return [
    ...(counted.length === 0
      ? []
      : [
          counts(
            'connections_total',
            'New connections to a Service since its rules were written',
            ({ connections }) => connections,
          ),
          counts(
            'refused_packets_total',
            'Packets to a Service without endpoints',
            ({ refused }) => refused.packets,
          ),
          counts(
            'dropped_packets_total',
            'Packets to a Service with policy Local and no endpoint on this node',
            ({ dropped }) => dropped.packets,
          ),
          counts(
            'barred_packets_total',
            'Packets to a load balancer address from outside its loadBalancerSourceRanges',
            ({ barred }) => barred.packets,
          ),
        ]),
    ...trafficSeries('service', 'a Service', told),
    series(
      'podwire_endpoint_connections_total',
      'New connections that a Service handed to an endpoint since its rules were written',
      toldEndpoints.flatMap(({ connections, labels }) =>
        connections === null ? [] : [[labels, connections]],
      ),
    ),
    ...trafficSeries('endpoint', 'an endpoint by way of a Service', toldEndpoints),
    gauge('podwire_service_metrics_omitted', 'Service ports that the limit leaves out', [
      ['', Math.max(0, all.length - limit)],
    ]),
    gauge(
      'podwire_endpoint_metrics_omitted',
      'Endpoints of the Service ports told that the limit leaves out',
      endpoints.length === 0 ? [] : [['', endpoints.length - toldEndpoints.length]],
    ),
    series(
      'podwire_service_traffic_overflows_total',
      'Times the kernel dropped word of ended connections, whose last packets are not counted',
      overflows === undefined ? [] : [['', overflows]],
    ),
  ].join('');
}

/** Connections say who is busy; where they are not counted, packets do. */
function serviceWeight({ counts, traffic }: ServiceStatus): number {
  if (counts === null) return traffic?.in.packets ?? 0;
  const { barred, connections, dropped, refused } = counts;
  return connections + refused.packets + dropped.packets + barred.packets;
}

function endpointWeight({ connections, traffic }: EndpointStatus): number {
  return connections ?? traffic?.in.packets ?? 0;
}

function trafficSeries(
  of: 'service' | 'endpoint',
  what: string,
  all: readonly { readonly labels: string; readonly traffic: Traffic | null }[],
): string[] {
  const samples = (unit: 'packets' | 'bytes'): Sample[] =>
    all.flatMap(({ labels, traffic }): Sample[] =>
      traffic === null
        ? []
        : [
            [`${labels},direction="in"`, traffic.in[unit]],
            [`${labels},direction="out"`, traffic.out[unit]],
          ],
    );
  const way = 'in: from clients, out: to them';
  return [
    series(
      `podwire_${of}_packets_total`,
      `IP packets of connections to ${what}; ${way}`,
      samples('packets'),
    ),
    series(
      `podwire_${of}_bytes_total`,
      `Bytes of these packets, with their IP headers; ${way}`,
      samples('bytes'),
    ),
  ];
}

function series(name: string, help: string, samples: readonly Sample[]): string {
  return family('counter', name, help, samples);
}

function gauge(name: string, help: string, samples: readonly Sample[]): string {
  return family('gauge', name, help, samples);
}

/** Nothing for what has no samples. */
function family(type: string, name: string, help: string, samples: readonly Sample[]): string {
  if (samples.length === 0) return '';
  const lines = samples.map(([labels, value]) =>
    labels === '' ? `${name} ${value}\n` : `${name}{${labels}} ${value}\n`,
  );
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`;
}

/** Names are DNS labels, targets addresses: none needs to be escaped. */
function serviceLabels({ family: of, name, namespace, port, protocol }: ServiceStatus): string {
  const ipFamily = of === 'ip' ? 'IPv4' : 'IPv6';
  return `namespace="${namespace}",service="${name}",port="${port}",protocol="${protocol}",ip_family="${ipFamily}"`;
}
