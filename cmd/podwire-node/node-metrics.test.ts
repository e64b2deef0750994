import { expect, test } from 'vitest';
import type { Step } from '#pkg/host-network/step.ts';
import { parseAddress } from '#pkg/ip/address.ts';
import { createNodeMetrics } from './node-metrics.ts';

test('changes of the host are counted by what was done to what', async () => {
  const metrics = createNodeMetrics();
  const entry = { kind: 'fdb', link: 'x', mac: '02:00:00:00:00:01', remote: parseAddress('::1') };
  const object = entry as Step['object'];
  const put: Step = { op: 'put', object, replaces: undefined };
  const address = { kind: 'neighbor', link: 'x', mac: '', address: parseAddress('::1') } as const;
  metrics.hostChanged([put, put, { op: 'delete', object }, { ...put, object: address }]);
  metrics.hostChanged([put]);
  const lines = (await metrics.render()).body.split('\n');
  expect(lines.filter((line) => line.includes('kind="'))).toEqual([
    expect.stringMatching(/op="put",kind="fdb"\} 3$/),
    expect.stringMatching(/op="delete",kind="fdb"\} 1$/),
    expect.stringMatching(/op="put",kind="neighbor"\} 1$/),
  ]);
});

test('packets of the backend udp are what the forwarder counted, at each scrape anew', async () => {
  const metrics = createNodeMetrics();
  let counts = { sent: 3, received: 2, dropped: 0 };
  metrics.forwarderCounts(() => counts);
  const lines = async (): Promise<string[]> =>
    (await metrics.render()).body.split('\n').filter((line) => line.includes('udp_packets_total{'));
  expect(await lines()).toEqual([
    'podwire_node_udp_packets_total{result="sent"} 3',
    'podwire_node_udp_packets_total{result="received"} 2',
    'podwire_node_udp_packets_total{result="dropped"} 0',
  ]);
  counts = { sent: 4, received: 2, dropped: 1 };
  expect(await lines()).toContain('podwire_node_udp_packets_total{result="sent"} 4');
  expect(await lines()).toContain('podwire_node_udp_packets_total{result="dropped"} 1');
});
