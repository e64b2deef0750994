import { afterEach, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { IptablesTool } from '#pkg/iptables/detect.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { ruleset } from '#pkg/proxy/testdata/records.ts';
import { watchDrift } from './drift.ts';

const stop = new AbortController();
afterEach(() => stop.abort());

it('asks the legacy filter each 2 s whether the rules are there, ever less often when they go', async () => {
  const clock = new FakeClock();
  let answer: 'there' | 'gone' | 'broken' = 'there';
  let asked = 0;
  const tool: IptablesTool = {
    family: 'ip',
    backend: 'legacy',
    version: '1.8.9',
    save: 'iptables-legacy-save',
    restore: 'iptables-legacy-restore',
    randomFully: true,
    run: () => {
      asked += 1;
      if (answer === 'there') return Promise.resolve({ stdout: '', stderr: '' });
      const why = answer === 'gone' ? 'iptables-restore: line 2 failed' : 'no such program';
      return Promise.reject(new AgentError('CommandFailed', why));
    },
  };
  let doubts = 0;
  let requests = 0;
  const writer = { doubt: () => void (doubts += 1), written: ruleset({ services: [] }) };
  const parts = {
    tools: new Map([['ip', tool]] as const),
    writers: new Map([['ip', writer]] as const),
    clock,
    log: silentLogger,
  };
  using _ = await watchDrift(parts, () => (requests += 1), stop.signal);

  await clock.advance(6_000);
  expect([asked, doubts, requests]).toEqual([3, 0, 0]);
  answer = 'broken';
  await clock.advance(2_000);
  expect([asked, doubts, requests]).toEqual([4, 0, 0]);
  answer = 'gone';
  await clock.advance(2_000);
  expect([asked, doubts, requests]).toEqual([5, 1, 1]);
  // After 2, 4, 8, 16, 32 s and then each minute.
  await clock.advance(62_000 + 60_000);
  expect(asked).toBe(11);
  answer = 'there';
  await clock.advance(60_000);
  const before = asked;
  await clock.advance(4_000);
  expect(asked - before).toBe(2);
});
