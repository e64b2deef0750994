import { expect, it } from 'vitest';
import type { Family } from '#pkg/ip/address.ts';
import { ServiceModel } from '#pkg/proxy/service-model.ts';
import { asChanges, nodeName, service, slice } from '#pkg/proxy/testdata/records.ts';
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

function source(isCounting: boolean) {
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
          ports: [{ name: 'p80', protocol: 'TCP', port: 80, nodePort: 30080 }],
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
  expect(lines).toEqual([
    `podwire_service_connections_total${labels('web')} 7`,
    `podwire_service_connections_total${labels('empty')} 0`,
    `podwire_service_refused_packets_total${labels('web')} 0`,
    `podwire_service_refused_packets_total${labels('empty')} 5`,
    `podwire_service_dropped_packets_total${labels('web')} 0`,
    `podwire_service_dropped_packets_total${labels('empty')} 0`,
    `podwire_service_barred_packets_total${labels('web')} 0`,
    `podwire_service_barred_packets_total${labels('empty')} 1`,
    'podwire_service_metrics_omitted 1',
    '',
  ]);
});
