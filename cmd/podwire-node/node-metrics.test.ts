import { expect, test } from 'vitest';
import { createNodeMetrics } from './node-metrics.ts';

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
