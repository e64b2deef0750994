import { describe, expect, test } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { nodeHealthRoutes } from './node-health.ts';
import { createNodeMetrics } from './node-metrics.ts';
import { NodeStatus } from './status.ts';

let clock = new FakeClock();
let stale: readonly string[] = [];

function daemon(): { status: NodeStatus; get: (path: string) => Promise<string> } {
  clock = new FakeClock();
  stale = [];
  const status = new NodeStatus(clock, silentLogger);
  const metrics = createNodeMetrics();
  metrics.gauges(() => ({ isReady: true, nodes: 3, problems: 0 }));
  metrics.roundEnded('success', 20);
  const routes = nodeHealthRoutes(status, () => stale, metrics, clock);
  const get = async (path: string): Promise<string> => {
    const answer = await routes.get(path)?.({ query: new URLSearchParams(), body: '' });
    return `${answer?.status} ${answer?.body}`;
  };
  return { status, get };
}

describe('nodeHealthRoutes()', () => {
  test('/healthz says what is missing, and ok once nothing is', async () => {
    const { status, get } = daemon();
    expect(await get('/healthz')).toBe('503 starting: the list of Nodes has not arrived yet\n');
    status.roundEnded({ kind: 'waiting', reason: 'no podCIDRs' });
    expect(await get('/healthz')).toBe('503 waiting: no podCIDRs\n');
    status.roundEnded({ kind: 'ready' });
    expect(await get('/healthz')).toBe('200 ok\n');
  });

  test('/healthz lists a bad peer and a silent API server, and stays well', async () => {
    const { status, get } = daemon();
    status.roundEnded({ kind: 'ready' });
    status.setProblems([{ node: 'b', message: 'no address' }]);
    stale = ['the watch of nodes is down'];
    expect(await get('/healthz')).toBe('200 ok\nthe watch of nodes is down\nnode b: no address\n');
  });

  test('/livez is well while waiting, and not when no round ends any more', async () => {
    const { status, get } = daemon();
    await clock.advance(1_000_000);
    expect(await get('/livez')).toBe('200 ok\n');
    status.roundEnded({ kind: 'waiting', reason: 'no podCIDRs' });
    await clock.advance(179_000);
    clock.set(Date.UTC(2026, 0));
    expect(await get('/livez')).toBe('200 ok\n');
    await clock.advance(2_000);
    expect(await get('/livez')).toBe('503 no round has ended for 181 s\n');
  });

  test('/metrics has our series', async () => {
    const body = await daemon().get('/metrics');
    expect(body).toContain('podwire_node_ready 1');
    expect(body).toContain('podwire_node_nodes 3');
    expect(body).toContain('podwire_node_round_duration_seconds_count{result="success"} 1');
  });
});
