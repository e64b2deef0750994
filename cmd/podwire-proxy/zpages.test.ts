import { describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import type { Answer } from '#pkg/health/http-server.ts';
import { zpages } from './zpages.ts';

const clock = new FakeClock(Date.UTC(2026, 6, 5, 12, 30, 7));

function ask(path: string, accept?: string, featureGates = {}): Answer | undefined {
  const pages = zpages({
    program: 'kube-proxy',
    version: '1.2.3',
    nodeVersion: 'v26.0.0',
    flags: new Map([
      ['v', '2'],
      ['config', '/var/lib/kube-proxy/config.conf'],
    ]),
    featureGates,
    clock,
    startedMs: clock.now() - (26 * 3_600 + 61) * 1_000,
    paths: ['/metrics', '/configz'],
  });
  const asked = { query: new URLSearchParams(), body: '' };
  return pages.get(path)?.(accept === undefined ? asked : { ...asked, accept }) as Answer;
}

const warning =
  'Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.';

describe('pages about the process', () => {
  it('/flagz tells the flags that were given', () => {
    expect(ask('/flagz')).toMatchObject({
      status: 200,
      contentType: 'text/plain; charset=utf-8',
      body: `\nkube-proxy flagz\n${warning}\n\nconfig: /var/lib/kube-proxy/config.conf\nv: 2\n`,
    });
  });

  it('/statusz tells since when it runs, and what answers beside it', () => {
    const lines = [
      'Started: Sat Jul  4 10:29:06 UTC 2026',
      'Up: 26 hr 01 min 01 sec',
      'Node.js version: v26.0.0',
      'Binary version: 1.2.3',
      'Paths: /configz /flagz /metrics /statusz',
    ];
    expect(ask('/statusz')?.body).toBe(`\nkube-proxy statusz\n${warning}\n\n${lines.join('\n')}\n`);
  });

  it.each([
    ['text/plain', 200],
    ['text/plain;charset=UTF-8', 200],
    ['application/json, */*;q=0.8', 200],
    ['', 200],
    ['application/json;as=Statusz;g=config.k8s.io;v=v1alpha1', 406],
    ['text/plain;version=2', 406],
  ])('answers who accepts %j with %d', (accept, status) => {
    expect(ask('/statusz', accept)?.status).toBe(status);
  });

  it('is turned off by feature gates', () => {
    expect(ask('/flagz', undefined, { ComponentFlagz: false })).toBeUndefined();
    expect(ask('/statusz', undefined, { ComponentStatusz: false })).toBeUndefined();
    expect(ask('/statusz', undefined, { ComponentFlagz: false })?.body).toContain(
      'Paths: /configz /metrics /statusz\n',
    );
  });
});
