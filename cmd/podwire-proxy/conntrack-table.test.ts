import { describe, expect, it } from 'vitest';
import { local, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { CleanerBench as Bench, pods, svc, udp } from './testdata/cleaner-bench.ts';

describe('S118. S119. of a whole table', () => {
  // Each name is an address that leads to the Service it is named after.
  const cluster: Cluster = {
    services: [
      svc('plain', ['172.30.0.1', 'fd00:30::1']),
      svc('exposed', ['172.30.0.2', 'fd00:30::2'], {
        type: 'LoadBalancer',
        ports: udp(30053),
        externalIPs: ['192.0.2.2', '2001:db8::2'],
        loadBalancerIngress: [
          { ip: '198.51.100.2', ipMode: 'VIP' },
          { ip: '198.51.100.99', ipMode: 'Proxy' },
        ],
      }),
      svc('empty', ['172.30.0.3'], { type: 'NodePort', ports: udp(30054) }),
      svc('local', ['172.30.0.4'], { internalTrafficPolicy: 'Local' }),
      service('ns/tcp', {
        clusterIPs: ['172.30.0.5'],
        type: 'NodePort',
        ports: [{ name: 'u', protocol: 'TCP', port: 53, nodePort: 30055 }],
      }),
      service('ns/sctp', {
        clusterIPs: ['172.30.0.6'],
        ports: [{ name: 'u', protocol: 'SCTP', port: 53, nodePort: 0 }],
      }),
    ],
    slices: [
      pods('plain', [
        '10.1.0.1',
        { address: '10.1.0.2', ready: false },
        { address: '10.1.0.3', terminating: true },
        { address: '10.1.0.4', terminating: true, serving: false },
        { address: '10.1.0.5', ready: false, serving: false },
      ]),
      pods('plain', ['fd00:10::1']),
      pods('exposed', ['10.1.0.1', { address: '10.1.0.5', ready: false, serving: false }]),
      pods('exposed', ['fd00:10::1']),
      pods('local', [local('10.1.0.1'), '10.1.0.2']),
      slice('ns/tcp', ['10.1.0.1'], { ports: [{ name: 'u', protocol: 'TCP', port: 5353 }] }),
      slice('ns/sctp', ['10.1.0.1'], { ports: [{ name: 'u', protocol: 'SCTP', port: 5353 }] }),
    ],
  };
  const client = '10.1.0.200:4000';
  const client6 = '[fd00:10::200]:4000';
  /** The flows of a destination, by who answers. */
  const flows = (destination: string, servers: readonly string[]): string[] =>
    servers.map((server) => `udp ${client} > ${destination} = ${server}`);
  const flows6 = (destination: string, servers: readonly string[]): string[] =>
    servers.map((server) => `udp ${client6} > ${destination} = ${server}`);
  const pod = (...numbers: number[]): string[] => numbers.map((n) => `10.1.0.${n}:5353`);
  const exposed = [
    '172.30.0.2:53',
    '192.0.2.2:53',
    '198.51.100.2:53',
    '192.168.0.2:30053',
    '127.0.0.1:30053',
  ];
  const exposed6 = ['[fd00:30::2]:53', '[2001:db8::2]:53', '[fd00:192::2]:30053'];

  const stale = [
    ...flows('172.30.0.1:53', [...pod(4, 5, 9), '10.1.0.1:53', '172.30.0.1:53']),
    ...flows6('[fd00:30::1]:53', ['[fd00:10::9]:5353', '[fd00:30::1]:53']),
    ...exposed.flatMap((to) => flows(to, [...pod(5, 9), to])),
    ...exposed6.flatMap((to) => flows6(to, ['[fd00:10::9]:5353', to])),
    ...['172.30.0.3:53', '192.168.0.2:30054'].flatMap((to) => flows(to, [...pod(1), to])),
    ...flows('172.30.0.4:53', pod(2, 9)),
  ];
  const kept = [
    ...flows('172.30.0.1:53', pod(1, 2, 3)),
    ...flows6('[fd00:30::1]:53', ['[fd00:10::1]:5353']),
    ...exposed.flatMap((to) => flows(to, pod(1))),
    ...exposed6.flatMap((to) => flows6(to, ['[fd00:10::1]:5353'])),
    ...flows('172.30.0.4:53', pod(1)),
    // Other ports of the same addresses, and the same ports of others.
    ...flows('172.30.0.1:54', pod(9)),
    ...flows('172.30.0.9:53', [...pod(9), '172.30.0.9:53']),
    ...flows('198.51.100.99:53', ['198.51.100.99:53']),
    ...flows('8.8.8.8:53', ['8.8.8.8:53']),
    ...flows('8.8.8.8:30053', ['8.8.8.8:30053']),
    ...flows('192.168.0.3:30053', pod(9)),
    ...flows('192.168.0.2:30055', pod(9)),
    ...flows('192.168.0.2:53', pod(9)),
    ...flows6('[fd00:30::9]:53', ['[fd00:10::9]:5353']),
    ...flows6('[fd00:192::3]:30053', ['[fd00:10::9]:5353']),
    // Answered from what is a Service's address is not sent there.
    'udp 172.30.0.1:53 > 10.1.0.200:4000 = 10.1.0.200:4000',
    // 119. TCP and SCTP are never looked at, whichever Service it is.
    ...['tcp', 'sctp'].flatMap((protocol) => [
      ...['1', '2', '3', '5', '6'].map(
        (n) => `${protocol} ${client} > 172.30.0.${n}:53 = 10.1.0.9:5353`,
      ),
      `${protocol} ${client} > 192.168.0.2:30053 = 10.1.0.9:5353`,
    ]),
  ];

  const oneByOne = cluster.services.map((s): Cluster => ({
    services: [s],
    slices: (cluster.slices ?? []).filter(({ serviceName }) => serviceName === s.name),
  }));

  it.each([
    ['known', 'all at once', [cluster]],
    ['known', 'one Service after another', oneByOne],
    ['ignored', 'one Service after another', oneByOne],
    ['refused', 'one Service after another', oneByOne],
  ] as const)(
    'exactly what is stale is deleted: the kernel’s filters are %s, changes come %s',
    async (filters, _, rounds) => {
      expect([...stale, ...kept].length).toBeGreaterThanOrEqual(63);
      await using bench = new Bench([...stale, ...kept].toSorted());
      bench.kernel.filters = filters;
      for (const round of rounds) {
        await bench.round(round);
        await bench.clock.advance(1_000);
      }
      expect(bench.kernel.entries.toSorted()).toEqual(kept.toSorted());
      const deleted = bench.cleaned.map(({ removed }) => removed.deleted);
      expect(deleted.reduce((sum, n) => sum + n, 0)).toBe(stale.length);
      // The second time there is nothing to do, and nothing is asked.
      const asked = bench.kernel.queries.length;
      await bench.round({ services: [], slices: [] });
      await bench.clock.advance(1_000);
      expect(bench.kernel.queries).toHaveLength(asked);
    },
  );
});
