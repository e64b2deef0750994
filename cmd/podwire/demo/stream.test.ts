import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { stream } from './stream.ts';

/** Only those that wait for answers: requests go out at their interval. */
beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
afterEach(() => void vi.useRealTimers());

const udp = { op: 'stream', protocol: 'udp', address: '127.0.0.1', intervalMs: 2 } as const;

describe('a stream over UDP', () => {
  it('whose server is gone is over, and may be told to end after that', async () => {
    const server = createSocket('udp4').bind(0, '127.0.0.1');
    await once(server, 'listening');
    server.once('message', (data, { port, address }) =>
      server.send(data, port, address, () => server.close()),
    );
    const enough = new AbortController();
    const request = { ...udp, port: server.address().port };
    const outcome = await stream(request, enough.signal, () => undefined);
    expect(outcome.error).toContain('ECONNREFUSED');
    enough.abort();
    vi.runAllTimers();
  });

  it('to where no packet may go is over', async () => {
    // A link-local address is of no use without its link: nothing is sent.
    const request = { ...udp, address: 'fe80::1', port: 9 };
    const outcome = await stream(request, new AbortController().signal, () => undefined);
    expect(outcome).toMatchObject({ answered: 0, error: expect.any(String) });
  });
});
