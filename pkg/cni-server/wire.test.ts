import { describe, expect, it } from 'vitest';
import { encodeAnswer, headerBytes, maxRequestBytes, parseRequest, requestLength } from './wire.ts';

/** As the launcher puts a request together. */
function launcherRequest(strings: string, stdin: string): Uint8Array {
  const text = Buffer.from(strings);
  const input = Buffer.from(stdin);
  const bytes = Buffer.alloc(64 + text.length + input.length);
  bytes.write('CNI1');
  bytes.writeUInt32LE(bytes.length - 8, 4);
  bytes.writeUInt32LE(text.length, 8);
  for (const [i, id] of [1n, 2n, 3n, 4n, 0n, 0n].entries()) bytes.writeBigUInt64LE(id, 16 + i * 8);
  text.copy(bytes, 64);
  input.copy(bytes, 64 + text.length);
  return bytes;
}

const strings = '/opt/cni/bin/bridge\0CNI_COMMAND=ADD\0EMPTY=\0A=b=c\0';

describe('a request', () => {
  it('has the name, the environment, standard input, and what the caller sees', () => {
    const bytes = launcherRequest(strings, '{"name":"ä"}');
    expect(requestLength(bytes.subarray(0, headerBytes))).toBe(bytes.byteLength - headerBytes);
    expect(parseRequest(bytes.subarray(headerBytes))).toEqual({
      name: '/opt/cni/bin/bridge',
      environment: { CNI_COMMAND: 'ADD', EMPTY: '', A: 'b=c' },
      stdin: '{"name":"ä"}',
      view: { root: '1:2', ownNetns: '3:4', podNetns: '0:0' },
    });
  });

  // A byte order mark is no JSON, whoever reads it.
  it.each(['', '\uFEFF{}'])('may have %j as standard input', (stdin) => {
    const bytes = launcherRequest(strings, stdin);
    expect(parseRequest(bytes.subarray(headerBytes))?.stdin).toBe(stdin);
  });

  it('of somebody else is none', () => {
    const bytes = launcherRequest(strings, '');
    bytes[0] = 0x47;
    expect(requestLength(bytes)).toBeUndefined();
  });

  it.each([0, 55, maxRequestBytes + 1])('of %i bytes is none', (length) => {
    const bytes = Buffer.from(launcherRequest(strings, ''));
    bytes.writeUInt32LE(length, 4);
    expect(requestLength(bytes)).toBeUndefined();
  });

  it('whose strings do not end is none', () => {
    const bytes = launcherRequest(strings.slice(0, -1), '{}');
    expect(parseRequest(bytes.subarray(headerBytes))).toBeUndefined();
    const long = Buffer.from(launcherRequest(strings, ''));
    long.writeUInt32LE(10_000, 8);
    expect(parseRequest(long.subarray(headerBytes))).toBeUndefined();
  });
});

describe('an answer', () => {
  it('has the exit code and the lengths of both outputs first', () => {
    const bytes = Buffer.from(encodeAnswer({ exitCode: 1, stdout: 'ä\n', stderr: 'no' }));
    expect([0, 4, 8].map((at) => bytes.readUInt32LE(at))).toEqual([1, 3, 2]);
    expect(bytes.toString('utf8', 12)).toBe('ä\nno');
  });
});
