import { describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { parseIpvsSave } from '#pkg/ipvs/parse.ts';
import { renderIpvsRestore } from '#pkg/ipvs/render.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { retireIpvs, type RetiringIpvs } from './ipvs-retirement.ts';

const saved = `-A -t 172.30.0.1:80 -s rr
-a -t 172.30.0.1:80 -r 10.1.0.2:8080 -m -w 1
-a -t 172.30.0.1:80 -r 10.1.0.3:8080 -m -w 0
-A -u 172.30.0.2:53 -s rr
-a -u 172.30.0.2:53 -r 10.1.0.4:53 -m -w 1
`;

function start(connections: () => number) {
  const clock = new FakeClock();
  const done: string[] = [];
  const stop = new AbortController();
  const ipvs: RetiringIpvs = {
    servers: async () => [...parseIpvsSave(saved).values()],
    apply: async (steps) => void done.push(...renderIpvsRestore(steps).trim().split('\n')),
    connections: async (keys) => {
      expect([...keys]).toEqual(['-t 172.30.0.1:80']);
      return connections();
    },
    forgetFlows: async (servers) =>
      void done.push(`forget ${servers.map((s) => s.address).join()}`),
  };
  const retiring = retireIpvs({ ipvs, clock, log: silentLogger }, stop.signal);
  return { clock, done, stop, retiring };
}

const first = [
  '-D -u 172.30.0.2:53',
  '-e -t 172.30.0.1:80 -r 10.1.0.2:8080 -m -w 0',
  'forget 172.30.0.2',
];

describe('retireIpvs()', () => {
  it('takes all away at once where there are no connections', async () => {
    const { done, retiring } = start(() => 0);
    await retiring;
    expect(done).toEqual([...first, '-D -t 172.30.0.1:80']);
  });

  it('leaves what carries connections until they have ended, and takes no new ones', async () => {
    let connections = 2;
    const { clock, done, retiring } = start(() => connections);
    await clock.advance(600_000);
    expect(done).toEqual(first);
    connections = 0;
    await clock.advance(5_000);
    await retiring;
    expect(done.at(-1)).toBe('-D -t 172.30.0.1:80');
  });

  it('ends them after an hour, and lets the kernel reset them before it returns', async () => {
    const { clock, done, retiring } = start(() => 1);
    let isOver = false;
    const over = retiring.then(() => (isOver = true));
    await clock.advance(3_600_000);
    expect(done.at(-1)).toBe('-D -t 172.30.0.1:80');
    expect(isOver).toBe(false);
    await clock.advance(5_000);
    await over;
  });

  it('stops with the proxy, and leaves connections to the next', async () => {
    const { clock, done, retiring, stop } = start(() => 1);
    await clock.advance(5_000);
    stop.abort(new Error('stopped'));
    await expect(retiring).rejects.toThrow('stopped');
    expect(done).toEqual(first);
  });
});
