import { expect, it } from 'vitest';
import type { Family } from '#pkg/ip/address.ts';
import { ServiceModel } from '#pkg/proxy/service-model.ts';
import { asChanges, nodeName, p80, service, slice } from '#pkg/proxy/testdata/records.ts';
import { statusText } from '#cmd/podwire/status.ts';
import type { FrontendCounts } from './proxy-mode.ts';
import { createServiceStatus } from './service-status.ts';

const none = { packets: 0, bytes: 0 };
const counts = (connections: number, refused = none): FrontendCounts => {
  return {
    connections,
    refused,
    dropped: none,
    barred: { packets: refused.packets === 0 ? 0 : 1, bytes: 0 },
  };
};

const byFrontend = new Map([
  ['172.30.0.1 . tcp . 80', counts(3)],
  ['tcp . 30080', counts(4)],
  ['172.30.0.2 . tcp . 80', counts(0, { packets: 5, bytes: 300 })],
]);
const byEndpoint = new Map([
  ['172.30.0.1 . tcp . 80', new Map([['10.1.0.1 80', 2]])],
  ['tcp . 30080', new Map([['10.1.0.1 80', 1]])],
]);

const carried = (packets: number) => ({
  in: { packets, bytes: 100 * packets },
  out: { packets: 2 * packets, bytes: 3000 * packets },
});
/** By frontend, and by frontend and endpoint. */
const carriedBy = new Map([
  ['172.30.0.1 . tcp . 80', carried(4)],
  ['172.30.0.1 . tcp . 80 10.1.0.2 80', carried(4)],
  ['tcp . 30080', carried(1)],
  ['tcp . 30080 10.1.0.2 80', carried(1)],
]);
const traffic = {
  update: () => undefined,
  look: () => Promise.resolve(),
  total: (_: Family, frontend: string) => carriedBy.get(frontend),
  endpoint: (_: Family, frontend: string, endpoint: string) =>
    carriedBy.get(`${frontend} ${endpoint}`),
  overflows: 7,
};

function source(isCounting: boolean, isMeasuring = false) {
  const counters = {
    services: () => Promise.resolve(byFrontend),
    endpoints: () => Promise.resolve(byEndpoint),
  };
  const status = createServiceStatus({
    mode: {
      name: 'nftables',
      writers: new Map([
        ['ip', { write: () => Promise.reject(new Error()), doubt: () => undefined }],
      ]),
      ...(isCounting ? { counters } : {}),
      ...(isMeasuring ? { traffic } : {}),
    },
    node: 'here',
    version: '1.2.3',
    tracker: {
      status: () =>
        new Map<Family, { alive: true; healthy: true; lastUpdatedMs: number }>([
          ['ip', { alive: true, healthy: true, lastUpdatedMs: 0 }],
        ]),
    },
  });
  const model = new ServiceModel('ip', { name: nodeName, zone: undefined });
  const changes = model.update(
    asChanges({
      services: [
        service('a/web', {
          clusterIPs: ['172.30.0.1'],
          type: 'NodePort',
          ports: p80(30080),
        }),
        service('a/empty', { clusterIPs: ['172.30.0.2'] }),
        service('b/idle', { clusterIPs: ['172.30.0.3'] }),
      ],
      slices: [slice('a/web', ['10.1.0.1', '10.1.0.2']), slice('b/idle', ['10.1.0.3'])],
    }),
  );
  status.afterWrite('ip', changes, { kind: 'full', written: 1 });
  return status;
}

it('tells what is served and counted, everywhere a Service answers together', async () => {
  const status = await source(true).status({ services: 'a', limit: 10 });
  expect(statusText(status, { endpoints: true })).toBe(
    `podwire-proxy 1.2.3 on here, mode nftables
IPv4: in sync, never written; 3 Service ports, 3 endpoints, 1 ports without any

SERVICE  PORT        ADDRESS        ENDPOINTS  CONNECTIONS  REFUSED  DROPPED  BARRED
a/empty  p80:80/tcp  172.30.0.2     0          0            5        0        1
a/web    p80:80/tcp  172.30.0.1     2          7            0        0        0
                       10.1.0.1:80             3
                       10.1.0.2:80             0
`,
  );
});

it('tells no Services unless asked, one by name, and how many the limit leaves out', async () => {
  const of = (services: string | undefined, limit = 10) => source(true).status({ services, limit });
  expect((await of(undefined)).services).toEqual([]);
  expect((await of('b/idle')).services.map(({ name }) => name)).toEqual(['idle']);
  const limited = await of('', 2);
  expect([limited.services.length, limited.omitted]).toEqual([2, 1]);
});

it('says so where nothing is counted', async () => {
  const status = await source(false).status({ services: 'a/web', limit: 10 });
  expect(statusText(status, { endpoints: true })).toMatch(
    /2 {10}- +- +- +-\n +10\.1\.0\.1:80 +-\n/,
  );
});

it('as metrics: the busiest, at most so many, and none unless configured', async () => {
  expect(await source(true).metrics(0)).toBe('');
  expect(await source(false).metrics(5)).toBe('');
  const lines = (await source(true).metrics(2)).split('\n').filter((line) => !line.startsWith('#'));
  const labels = (name: string) =>
    `{namespace="a",service="${name}",port="p80:80",protocol="tcp",ip_family="IPv4"}`;
  const endpointLabels = (endpoint: string): string =>
    labels('web').replace('}', `,endpoint="${endpoint}"}`);
  expect(lines).toEqual([
    `podwire_service_connections_total${labels('web')} 7`,
    `podwire_service_connections_total${labels('empty')} 0`,
    `podwire_service_refused_packets_total${labels('web')} 0`,
    `podwire_service_refused_packets_total${labels('empty')} 5`,
    `podwire_service_dropped_packets_total${labels('web')} 0`,
    `podwire_service_dropped_packets_total${labels('empty')} 0`,
    `podwire_service_barred_packets_total${labels('web')} 0`,
    `podwire_service_barred_packets_total${labels('empty')} 1`,
    `podwire_endpoint_connections_total${endpointLabels('10.1.0.1:80')} 3`,
    `podwire_endpoint_connections_total${endpointLabels('10.1.0.2:80')} 0`,
    'podwire_service_metrics_omitted 1',
    'podwire_endpoint_metrics_omitted 0',
    '',
  ]);
});

it('packets and bytes, where they are counted', async () => {
  const status = await source(true, true).status({ services: 'a', limit: 10 });
  const text = statusText(status, { endpoints: true });
  expect(text).toContain('BARRED  PACKETS IN  BYTES IN  PACKETS OUT  BYTES OUT\n');
  expect(text).toMatch(/a\/web .* 7 +0 +0 +0 +5 +500 +10 +15000\n/);
  expect(text).toMatch(/10\.1\.0\.2:80 +0 +5 +500 +10 +15000\n/);
  expect(text).toMatch(/10\.1\.0\.1:80 +3 +0 +0 +0 +0\n/);
});

it('packets and bytes as metrics, by themselves, of as many endpoints as Services', async () => {
  const lines = (await source(false, true).metrics(1))
    .split('\n')
    .filter((line) => !line.startsWith('#'));
  const labels = 'namespace="a",service="web",port="p80:80",protocol="tcp",ip_family="IPv4"';
  const endpoint = `${labels},endpoint="10.1.0.2:80"`;
  expect(lines).toEqual([
    `podwire_service_packets_total{${labels},direction="in"} 5`,
    `podwire_service_packets_total{${labels},direction="out"} 10`,
    `podwire_service_bytes_total{${labels},direction="in"} 500`,
    `podwire_service_bytes_total{${labels},direction="out"} 15000`,
    `podwire_endpoint_packets_total{${endpoint},direction="in"} 5`,
    `podwire_endpoint_packets_total{${endpoint},direction="out"} 10`,
    `podwire_endpoint_bytes_total{${endpoint},direction="in"} 500`,
    `podwire_endpoint_bytes_total{${endpoint},direction="out"} 15000`,
    'podwire_service_metrics_omitted 2',
    'podwire_endpoint_metrics_omitted 1',
    'podwire_service_traffic_overflows_total 7',
    '',
  ]);
});
