import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { birdCommand } from './control.ts';

let dir: string;
let server: Server;
let heard = '';
const { signal } = new AbortController();
const path = (): string => join(dir, 'bird.ctl');

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'podwire-bird-'));
  heard = '';
});
afterEach(async () => {
  await new Promise((resolve) => server.close(resolve));
  rmSync(dir, { recursive: true });
});

/** Answers the first command with these parts, one after the other. */
async function bird(
  parts: readonly string[],
  greeting = '0001 BIRD 2.0.12 ready.\n',
): Promise<void> {
  server = createServer((socket: Socket) => {
    socket.write(greeting);
    socket.on('error', () => undefined);
    socket.once('data', (bytes: Buffer) => {
      heard += bytes.toString();
      const send = ([part, ...rest]: readonly string[]): void => {
        if (part === undefined) return void socket.end();
        socket.write(part, () => setImmediate(send, rest));
      };
      send(parts);
    });
  });
  await new Promise<void>((resolve) => server.listen(path(), resolve));
}

describe('birdCommand()', () => {
  test('gives a command and reads an answer that comes in pieces', async () => {
    await bird(['0002-Reading config', 'uration from bird.conf\n00', '03 Reconfigured\n']);
    expect(await birdCommand(path(), 'configure', signal)).toEqual({
      code: 3,
      lines: ['Reading configuration from bird.conf', 'Reconfigured'],
    });
    expect(heard).toBe('configure\n');
  });

  test('lines that go on under one code are lines of their own', async () => {
    await bird(['2002-Name\n1002-podwire_pods4 Static\n podwire_1 BGP\n0000 \n']);
    expect((await birdCommand(path(), 'show protocols', signal)).lines).toEqual([
      'Name',
      'podwire_pods4 Static',
      'podwire_1 BGP',
      '',
    ]);
  });

  test('a refusal is an answer', async () => {
    await bird(['0002-Reading\n8002 bird.conf:3:1 syntax error\n']);
    expect(await birdCommand(path(), 'configure', signal)).toEqual({
      code: 8002,
      lines: ['Reading', 'bird.conf:3:1 syntax error'],
    });
  });

  test.each([
    ['ends before it has answered', ['0002-Reading\n'], undefined],
    ['ends before it has greeted', [], ''],
  ])('a BIRD that %s is an error', async (_, parts, greeting) => {
    await bird(parts, greeting);
    if (greeting === '') server.once('connection', (socket: Socket) => socket.destroy());
    await expect(birdCommand(path(), 'configure', signal)).rejects.toMatchObject({
      code: 'BirdUnreachable',
      message: `Cannot ask BIRD at ${path()} to configure`,
    });
  });

  test('so is one that is not there', async () => {
    await bird([]);
    await expect(birdCommand(`${path()}x`, 'configure', signal)).rejects.toMatchObject({
      code: 'BirdUnreachable',
      cause: { code: 'ENOENT' },
    });
  });

  test('who gives up gets the reason', async () => {
    await bird([]);
    await expect(
      birdCommand(path(), 'configure', AbortSignal.abort(new Error('stopped'))),
    ).rejects.toThrow('stopped');
  });
});
