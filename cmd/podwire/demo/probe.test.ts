import { describe, expect, it } from 'vitest';
import type { CallOutcome } from './agent-protocol.ts';
import { problemOf, type Expectation } from './probe.ts';

const answered = (server: string, source: string): CallOutcome => ({
  ok: true,
  server,
  source,
  ms: 1,
});
const failed = (code: string, ms = 1): CallOutcome => ({ ok: false, code, ms });
const answer: Expectation = { kind: 'answer', servers: ['echo-1'], sources: ['10.244.1.2'] };
const refused: Expectation = { kind: 'refused' };

describe('problemOf()', () => {
  it.each([
    ['an answer as expected', answer, answered('echo-1', '10.244.1.2'), undefined],
    ['an answer of another server', answer, answered('echo-2', '10.244.1.2'), 'answered by echo-2'],
    [
      'NAT where none is expected',
      answer,
      answered('echo-1', '192.0.2.11'),
      'the server saw 192.0.2.11',
    ],
    ['no answer', answer, failed('ETIMEDOUT', 1000), 'ETIMEDOUT after 1000 ms'],
    ['a refusal as expected', refused, failed('ECONNREFUSED'), undefined],
    ['a late refusal', refused, failed('ECONNREFUSED', 9000), 'refused after 9000 ms'],
    ['silence instead of a refusal', refused, failed('ETIMEDOUT', 4000), 'expected ECONNREFUSED'],
    ['an answer instead of a refusal', refused, answered('echo-1', ''), 'expected a refusal'],
  ])('%s', (_name, expect_, outcome, problem) => {
    const probe = { row: '', family: 'ip', from: 'node1', address: '10.96.0.1', port: 80 } as const;
    const found = problemOf({ ...probe, expect: expect_ }, 'tcp', outcome);
    if (problem === undefined) expect(found).toBeUndefined();
    else expect(found).toContain(problem);
  });

  it('knows that UDP is told of a refusal at once', () => {
    const probe = {
      row: '',
      family: 'ip',
      from: 'a',
      address: 'b',
      port: 1,
      expect: refused,
    } as const;
    expect(problemOf(probe, 'udp', failed('ECONNREFUSED', 1100))).toContain('at most 500');
    expect(problemOf(probe, 'tcp', failed('ECONNREFUSED', 1100))).toBeUndefined();
  });
});
