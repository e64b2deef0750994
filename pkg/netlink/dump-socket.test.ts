import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Sys } from '#pkg/sys/sys.ts';
import {
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
} from './constants.ts';
import { DumpSocket } from './dump-socket.ts';
import { encodeMessage, type Message } from './message.ts';

/** The kernel's side is a FIFO: the request comes back first, then what the test writes. */
let dir: string;
let fd: number;
let socket: DumpSocket;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'pw-dump-'));
  execFileSync('mkfifo', [join(dir, 'fifo')]);
  const none = (): never => {
    throw new Error('not expected here');
  };
  const sys: Sys = {
    socket: () => (fd = openSync(join(dir, 'fifo'), 'r+')),
    bind: () => undefined,
    connect: () => undefined,
    setsockopt: () => undefined,
    close: closeSync,
    getsockname: none,
    send: none,
    recv: none,
    poll: none,
    setns: none,
    flock: none,
  };
  socket = new DumpSocket(sys, 12);
});
afterEach(() => {
  socket[Symbol.dispose]();
  rmSync(dir, { recursive: true });
});

const request = { type: 24, body: [new Uint8Array(4)], what: 'list things' };
const answer = (type: number, { flags = 2, sequence = 1, errno = 0 } = {}): void => {
  const body = new Uint8Array(Int32Array.of(-errno).buffer);
  writeSync(fd, encodeMessage({ type, flags, sequence }, [body]));
};

/** The messages of a whole dump, without our own request, and its end. */
async function dumped(
  feed: () => void,
): Promise<{ readonly messages: readonly Message[]; readonly end: string }> {
  const parts = socket.dump(request);
  const messages: Message[] = [];
  const first = await parts.next();
  if (first.done === true) throw new Error('expected the request');
  messages.push(...first.value);
  feed();
  for (;;) {
    const next = await parts.next();
    if (next.done !== true) messages.push(...next.value);
    else return { messages: messages.filter(({ type }) => type !== request.type), end: next.value };
  }
}

describe('dump()', () => {
  it('asks for a dump and gives out its parts to the end', async () => {
    const parts = socket.dump(request);
    const first = await parts.next();
    expect(first.value).toMatchObject([
      { type: 24, flags: NLM_F_REQUEST | NLM_F_DUMP, sequence: 1 },
    ]);
    answer(16);
    expect((await parts.next()).value).toMatchObject([{ type: 16 }]);
    answer(16);
    answer(NLMSG_DONE);
    expect((await parts.next()).value).toMatchObject([{ type: 16 }]);
    expect(await parts.next()).toEqual({ done: true, value: 'whole' });
  });

  it('S121. says that it was interrupted, and has given out what came', async () => {
    const { end, messages } = await dumped(() => {
      answer(16, { flags: 2 | NLM_F_DUMP_INTR });
      answer(NLMSG_DONE);
    });
    expect({ end, count: messages.length }).toEqual({ end: 'interrupted', count: 1 });
  });

  it.each([NLMSG_DONE, NLMSG_ERROR])(
    'throws a refusal (message %d), and can dump again',
    async (type) => {
      await expect(dumped(() => answer(type, { errno: 95 }))).rejects.toMatchObject({
        code: 'EOPNOTSUPP',
      });
      const { end } = await dumped(() => {
        // Left over from the one before.
        answer(16, { sequence: 1 });
        answer(NLMSG_DONE, { sequence: 2 });
      });
      expect(end).toBe('whole');
    },
  );
});
