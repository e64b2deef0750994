import { describe, expect, it } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { attributeString, concatBytes } from './attribute.ts';
import { encodeMessage, parseMessages, type Message } from './message.ts';
import { NetlinkError } from './netlink-error.ts';
import { NetlinkSocket, type NetlinkRequest } from './socket.ts';

const acknowledge = 0x4;
const interrupted = 0x10;
const error = 2;
const done = 3;

/** What a scripted kernel answers to one datagram: datagrams, or an errno name in place of one. */
type Answers = readonly (Uint8Array | string)[];

/**
 * A kernel that answers as told. Waiting for more than it has to say times out at once; and as in
 * the kernel, an overflown socket gets nothing more until it has been read empty.
 */
function scriptedSys(answer: (messages: readonly Message[], send: number) => Answers): {
  readonly sys: Sys;
  readonly sent: readonly (readonly Message[])[];
  readonly closed: readonly number[];
} {
  const queue: (Uint8Array | string)[] = [];
  const sent: (readonly Message[])[] = [];
  let congested = false;
  const closed: number[] = [];
  const sys: Sys = {
    socket: () => 77,
    bind: () => undefined,
    connect: () => undefined,
    getsockname: () => 12,
    setsockopt: () => undefined,
    send(_, data) {
      const messages = parseMessages(data.slice());
      sent.push(messages);
      const answers = answer(messages, sent.length);
      if (!congested) queue.push(...answers);
      return data.byteLength;
    },
    recv(_, buffer) {
      const next = queue.shift() ?? 'EAGAIN';
      if (next === 'ENOBUFS') congested = true;
      if (next === 'EAGAIN') congested = false;
      if (typeof next === 'string') throw new AgentError(next, `Cannot receive: ${next}`);
      buffer.set(next);
      return next.byteLength;
    },
    poll: () => 0,
    setns: () => undefined,
    flock: () => undefined,
    close: (fd) => void closed.push(fd),
  };
  return { sys, sent, closed };
}

function refusal(message: Message, errno: number, text?: string): Uint8Array {
  const words = text === undefined ? [] : [attributeString(1, text)];
  const body = [new Uint8Array(Int32Array.of(-errno).buffer), new Uint8Array(16), ...words];
  return encodeMessage({ ...message, type: error, flags: 0x300 }, body);
}

function part(message: Message, type: number, flags = 2): Uint8Array {
  return encodeMessage({ type, flags, sequence: message.sequence }, [new Uint8Array(4)]);
}

/** Acknowledges what asks for it, as the kernel does. */
function acknowledgements(messages: readonly Message[]): Uint8Array[] {
  return messages.filter(({ flags }) => (flags & acknowledge) !== 0).map((m) => refusal(m, 0));
}

const request: NetlinkRequest = { type: 24, body: [new Uint8Array(12)], what: 'add route x' };

describe('request()', () => {
  it('throws the kernel’s refusal as errno name, words of ours and words of its own', () => {
    const { sys } = scriptedSys(([m]) => (m === undefined ? [] : [refusal(m, 101, 'No way')]));
    using socket = new NetlinkSocket(sys);
    const failure: unknown = (() => {
      try {
        return socket.request(request);
      } catch (caught) {
        return caught;
      }
    })();
    expect(failure).toBeInstanceOf(NetlinkError);
    expect(failure).toMatchObject({
      code: 'ENETUNREACH',
      message: 'Cannot add route x: network is unreachable (ENETUNREACH): No way',
    });
  });

  it('returns answers, and ignores those to a request that was given up', () => {
    const { sys } = scriptedSys((messages) => {
      const [m] = messages;
      if (m === undefined) return [];
      const stale = { ...m, sequence: m.sequence - 1 };
      return [refusal(stale, 22), part(stale, 16), part(m, 16), ...acknowledgements(messages)];
    });
    using socket = new NetlinkSocket(sys);
    expect(socket.request(request)).toHaveLength(1);
  });

  it('does not wait for ever', () => {
    using socket = new NetlinkSocket(scriptedSys(() => []).sys);
    expect(() => socket.request(request)).toThrow('no answer within 10000 ms');
  });

  it('closes its descriptor when disposed', () => {
    const { sys, closed } = scriptedSys(() => []);
    new NetlinkSocket(sys)[Symbol.dispose]();
    expect(closed).toEqual([77]);
  });
});

describe('batch()', () => {
  it('gives each request its own result', () => {
    const { sys, sent } = scriptedSys((messages) => [
      ...messages.slice(1, 2).map((m) => refusal(m, 17)),
      ...acknowledgements(messages),
    ]);
    using socket = new NetlinkSocket(sys);
    const results = socket.batch([request, { ...request, what: 'add route y' }, request]);
    expect(results.map((result) => result.error?.message)).toEqual([
      undefined,
      'Cannot add route y: file already exists (EEXIST)',
      undefined,
    ]);
    expect(sent.map((messages) => messages.map(({ flags }) => flags))).toEqual([[1, 1, 5]]);
  });

  it('sends no more at once than the send buffer takes', () => {
    const { sys, sent } = scriptedSys(acknowledgements);
    using socket = new NetlinkSocket(sys);
    const small = Array.from({ length: 2500 }, () => request);
    expect(socket.batch(small).every((result) => result.error === undefined)).toBe(true);
    expect(sent.map((messages) => messages.length)).toEqual([1024, 1024, 452]);
    const big = Array.from({ length: 4 }, () => ({ ...request, body: [new Uint8Array(60_000)] }));
    socket.batch(big);
    expect(sent.slice(3).map((messages) => messages.length)).toEqual([2, 2]);
  });

  it('says so of every request whose answer was lost, and starts afresh', () => {
    const { sys } = scriptedSys((messages, send) => {
      const [first] = messages;
      if (send > 1 || first === undefined) return acknowledgements(messages);
      return [refusal(first, 17), 'ENOBUFS', ...acknowledgements(messages)];
    });
    using socket = new NetlinkSocket(sys);
    const codes = socket.batch([request, request]).map((result) => result.error?.code);
    expect(codes).toEqual(['EEXIST', 'ENOBUFS']);
    expect(socket.batch([request])).toEqual([{ error: undefined, replies: [] }]);
  });

  it('sends nothing for no requests', () => {
    const { sys, sent } = scriptedSys(acknowledgements);
    using socket = new NetlinkSocket(sys);
    expect(socket.batch([])).toEqual([]);
    expect(sent).toEqual([]);
  });
});

describe('dump()', () => {
  it('reads to the end', () => {
    const { sys } = scriptedSys(([m]) =>
      m === undefined ? [] : [concatBytes([part(m, 16), part(m, 16)]), part(m, 16), part(m, done)],
    );
    using socket = new NetlinkSocket(sys);
    expect(socket.dump(request)).toHaveLength(3);
  });

  it.each([
    ['marks a part of', (m: Message) => [part(m, 16, 2 | interrupted), part(m, done)]],
    ['marks the end of', (m: Message) => [part(m, 16), part(m, done, 2 | interrupted)]],
    ['loses some of', (m: Message) => [part(m, 16), 'ENOBUFS', part(m, done)]],
  ])('156. reads again when the kernel %s the dump', (_, broken) => {
    const { sys, sent } = scriptedSys(([m], send) => {
      if (m === undefined) return [];
      return send < 3 ? broken(m) : [part(m, 16), part(m, done)];
    });
    using socket = new NetlinkSocket(sys);
    expect(socket.dump(request)).toHaveLength(1);
    expect(sent).toHaveLength(3);
  });

  it('gives up on a table that does not stand still', () => {
    const { sys, sent } = scriptedSys(([m]) =>
      m === undefined ? [] : [part(m, 16, 2 | interrupted), part(m, done)],
    );
    using socket = new NetlinkSocket(sys);
    expect(() => socket.dump(request)).toThrow(expect.objectContaining({ code: 'EINTR' }));
    expect(sent).toHaveLength(5);
  });

  it('throws the errno at its end, and a refusal in place of it', () => {
    const errno = (m: Message): Uint8Array =>
      encodeMessage({ ...m, type: done, flags: 2 }, [new Uint8Array(Int32Array.of(-12).buffer)]);
    const late = scriptedSys(([m]) => (m === undefined ? [] : [part(m, 16), errno(m)]));
    using one = new NetlinkSocket(late.sys);
    expect(() => one.dump(request)).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    const early = scriptedSys(([m]) => (m === undefined ? [] : [refusal(m, 95)]));
    using two = new NetlinkSocket(early.sys);
    expect(() => two.dump(request)).toThrow(expect.objectContaining({ code: 'EOPNOTSUPP' }));
  });
});

describe('dumpParts()', () => {
  const threeParts = (messages: readonly Message[]): Uint8Array[] => {
    const [m] = messages;
    if (m === undefined) return [];
    if (m.flags & acknowledge) return acknowledgements(messages);
    return [part(m, 16), part(m, 16), part(m, done)];
  };

  it('refuses whatever else is asked meanwhile, which would take parts of the answer', () => {
    const { sys, sent } = scriptedSys(threeParts);
    using socket = new NetlinkSocket(sys);
    const parts = socket.dumpParts(request);
    expect(parts.next().value).toHaveLength(1);
    expect(() => socket.request(request)).toThrow(expect.objectContaining({ code: 'EBUSY' }));
    expect(() => socket.dump(request)).toThrow(expect.objectContaining({ code: 'EBUSY' }));
    expect([...parts].flat()).toHaveLength(1);
    expect(sent).toHaveLength(1);
    expect(socket.request(request)).toEqual([]);
  });

  it('leaves nothing behind when nobody wants the rest', () => {
    const { sys } = scriptedSys(threeParts);
    using socket = new NetlinkSocket(sys);
    for (const _ of socket.dumpParts(request)) break;
    expect(() => sys.recv(77, new Uint8Array(9), 0)).toThrow(
      expect.objectContaining({ code: 'EAGAIN' }),
    );
    expect(socket.dump(request)).toHaveLength(2);
  });
});
