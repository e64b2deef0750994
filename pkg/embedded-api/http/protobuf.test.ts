import { describe, expect, it } from 'vitest';
import { parseProtobuf } from './protobuf.ts';

/** One length-delimited field. */
function field(number: number, content: Buffer | string): Buffer {
  const bytes = Buffer.from(content as string);
  return Buffer.concat([Buffer.from([number * 8 + 2, bytes.length]), bytes]);
}

function number(fieldNumber: number, value: number): Buffer {
  return Buffer.from([fieldNumber * 8, value]);
}

function body(kind: string, object: Buffer): Buffer {
  const type = Buffer.concat([field(1, 'v1'), field(2, kind)]);
  return Buffer.concat([Buffer.from('k8s\0'), field(1, type), field(2, object)]);
}

const metadata = field(1, Buffer.concat([field(1, 'x'), field(2, ''), field(5, '')]));

describe('parseProtobuf() reads', () => {
  it('maps, and leaves out what is empty', () => {
    const entry = (key: string, value: string): Buffer =>
      field(2, Buffer.concat([field(1, key), field(2, value)]));
    expect(
      parseProtobuf(body('ConfigMap', Buffer.concat([metadata, entry('a', '1'), entry('b', '2')]))),
    ).toEqual({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'x' },
      data: { a: '1', b: '2' },
    });
  });

  it('ports by number and by name', () => {
    const port = (value: number, target: Buffer): Buffer =>
      field(1, Buffer.concat([number(3, value), field(4, target), number(5, 0)]));
    const spec = field(
      2,
      Buffer.concat([
        port(80, Buffer.concat([number(1, 0), number(2, 88), field(3, '')])),
        port(81, Buffer.concat([number(1, 1), number(2, 0), field(3, 'http')])),
      ]),
    );
    expect(parseProtobuf(body('Service', Buffer.concat([metadata, spec])))).toMatchObject({
      spec: {
        ports: [
          { port: 80, targetPort: 88 },
          { port: 81, targetPort: 'http' },
        ],
      },
    });
  });
});

describe('parseProtobuf() refuses', () => {
  it.each([
    ['what is no protobuf', Buffer.from('{}'), 400],
    ['a body that is cut', body('ConfigMap', metadata).subarray(0, -2), 400],
    ['a number that never ends', Buffer.from([0x6b, 0x38, 0x73, 0, 0x80]), 400],
    ['a kind it does not know', body('Secret', metadata), 415],
    ['a field it does not know', body('ConfigMap', field(9, 'x')), 415],
  ])('%s', (_name, bytes, httpCode) => {
    expect(() => parseProtobuf(bytes)).toThrow(expect.objectContaining({ httpCode }));
  });
});
