import { mkdtempSync, rmSync, utimesSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { FrrSpeaker } from '#pkg/frr/config.ts';
import { createFrrDriver, type FrrDriver } from './frr-driver.ts';

let dir: string;
let server: Server | undefined;
let sockets: Socket[];
/** What bgpd was told, but for questions; what it answers to some of them. */
let told: string[];
let asked: string[];
/** What bgpd has read at a time: before it has carried that out it does nothing else. */
let strokes: string[][];
let answers: Record<string, readonly [text: string, status?: number]>;
let lost: number;
let slept: number[];
let onSleep: () => void;
let driver: FrrDriver;
const { signal } = new AbortController();
const vtySocket = (): string => join(dir, 'bgpd.vty');

const speaker = (...neighbors: readonly string[]): FrrSpeaker => ({
  asNumber: 64_512,
  routerId: '192.168.1.1',
  filters: [],
  groups: [],
  neighbors: neighbors.map((address) => ({ address, group: 'PODWIRE-4' })),
  networks: [],
});
/** What bgpd has when this was taken in. */
const running = (...neighbors: readonly string[]): string =>
  [
    'router bgp 64512',
    ' bgp router-id 192.168.1.1',
    ' bgp graceful-restart preserve-fw-state',
    ' no bgp network import-check',
    ...neighbors.flatMap((address) => [
      ` neighbor ${address} peer-group PODWIRE-4`,
      ` neighbor ${address} graceful-restart`,
    ]),
    'exit',
    '',
  ].join('\n');

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'podwire-frr-'));
  [sockets, told, asked, strokes, lost, slept] = [[], [], [], [], 0, []];
  onSleep = () => undefined;
  answers = { 'show running-config': [running()], 'show bgp summary json': ['{}'] };
  await startBgpd();
  driver = createFrrDriver(
    { vtySocket: vtySocket() },
    {
      clock: {
        now: () => 1_000_000,
        monotonicMs: () => 0,
        sleep: async (ms) => {
          slept.push(ms);
          onSleep();
        },
      },
      onLost: () => {
        lost++;
      },
    },
  );
});
afterEach(async () => {
  driver[Symbol.dispose]();
  await stopBgpd();
  rmSync(dir, { recursive: true });
});

async function startBgpd(): Promise<void> {
  server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    socket.on('data', (bytes: Buffer) => {
      const commands = bytes.toString().slice(0, -1).split('\0');
      strokes.push(commands);
      for (const command of commands) (command.startsWith('show ') ? asked : told).push(command);
      const answer = Buffer.concat(commands.map(answerTo));
      // In pieces, as a long one comes: the second when the first has been read.
      socket.write(answer.subarray(0, -2));
      setImmediate(() => setImmediate(() => socket.write(answer.subarray(-2))));
    });
  });
  await new Promise<void>((resolve) => server?.listen(vtySocket(), resolve));
}

function answerTo(command: string): Buffer {
  const [text, status = 0] = answers[command] ?? [''];
  return Buffer.from(`${text}\0\0\0${String.fromCodePoint(status)}`);
}

async function stopBgpd(): Promise<void> {
  const stopping = server;
  server = undefined;
  for (const socket of sockets.splice(0)) socket.destroy();
  if (stopping !== undefined) await new Promise((resolve) => stopping.close(resolve));
}

describe('the FRR driver', () => {
  test('tells what is missing, and nothing when nothing is', async () => {
    await driver.apply(speaker('192.168.1.2'), signal);
    expect(told).toEqual([
      'enable',
      'configure terminal',
      'router bgp 64512',
      'neighbor 192.168.1.2 peer-group PODWIRE-4',
      'neighbor 192.168.1.2 graceful-restart',
      'exit',
      'end',
    ]);
    [told, asked] = [[], []];
    await driver.apply(speaker('192.168.1.2'), signal);
    expect([told, asked]).toEqual([[], []]);
    answers['show running-config'] = [running('192.168.1.2', '192.168.1.3')];
    await driver.apply(speaker('192.168.1.2', '192.168.1.3'), signal);
    expect(told).toEqual([]);
  });

  test('a neighbour is told at one stroke: it may connect before the next one', async () => {
    await driver.apply(speaker('192.168.1.2', '192.168.1.3'), signal);
    expect(strokes.filter((commands) => commands.length > 1)).toEqual(
      ['192.168.1.2', '192.168.1.3'].map((address) => [
        `neighbor ${address} peer-group PODWIRE-4`,
        `neighbor ${address} graceful-restart`,
      ]),
    );
  });

  test('a bgpd that ends is heard of at once, and told all when it is back', async () => {
    answers['show running-config'] = [running('192.168.1.2')];
    await driver.apply(speaker('192.168.1.2'), signal);
    expect(told).toEqual(['enable']);
    await stopBgpd();
    await expect.poll(() => lost).toBe(1);
    await expect(driver.apply(speaker('192.168.1.2'), signal)).rejects.toMatchObject({
      code: 'FrrUnreachable',
      message: `Cannot ask FRR at ${vtySocket()} for "enable"`,
      cause: { code: 'ENOENT' },
    });
    answers['show running-config'] = [running()];
    await startBgpd();
    await driver.apply(speaker('192.168.1.2'), signal);
    expect(told).toContain('neighbor 192.168.1.2 peer-group PODWIRE-4');
    // That it was not there is no news.
    expect(lost).toBe(1);
  });

  test('a bgpd that has just started is given time to come to itself', async () => {
    answers['show running-config'] = ['hostname a\n'];
    onSleep = () => {
      answers['show running-config'] = [
        'router bgp 65000\n neighbor 10.0.0.1 remote-as 65001\nexit\n',
      ];
    };
    utimesSync(vtySocket(), 999, 999);
    await expect(driver.apply(speaker(), signal)).rejects.toMatchObject({ code: 'FrrOtherAs' });
    expect(slept).toEqual([2000]);
    expect(told).toEqual(['enable']);
  });

  test('what FRR refuses is named, and all blocks are left', async () => {
    await driver.apply(speaker(), signal);
    const command = 'neighbor 192.168.1.2 peer-group PODWIRE-4';
    answers[command] = ['% Configure the peer-group first\n', 13];
    await expect(driver.apply(speaker('192.168.1.2'), signal)).rejects.toMatchObject({
      code: 'FrrRefused',
      message: `Cannot configure FRR: it refuses "${command}": % Configure the peer-group first`,
    });
    expect(told.slice(-3)).toEqual([command, 'neighbor 192.168.1.2 graceful-restart', 'end']);
    // What it has now is not known.
    asked = [];
    await driver.apply(speaker(), signal);
    expect(asked).toContain('show running-config');
  });

  test('what does not work is told, once there was time for it to work', async () => {
    const wanted: FrrSpeaker = {
      ...speaker('192.168.1.2', '192.168.1.3'),
      networks: [{ family: 'ip', prefix: '10.244.1.0/24', routeMap: 'PODWIRE-PODS' }],
    };
    await driver.apply(wanted, signal);
    expect(driver.problems()).toEqual([]);
    const text = running('192.168.1.2', '192.168.1.3').replace(
      'exit\n',
      ' address-family ipv4 unicast\n  network 10.244.1.0/24 route-map PODWIRE-PODS\n',
    );
    Object.assign(answers, {
      'show running-config': [text],
      'show bgp ipv4 unicast 10.244.1.0/24 json': ['{"paths":[{"local":true,"valid":false}]}'],
      'show bgp summary json': [
        '{"ipv4Unicast":{"peers":{"192.168.1.2":{"state":"Active"},"192.168.1.3":{"state":"Established"}}}}',
      ],
      'show bgp neighbors 192.168.1.2 json': [
        '{"192.168.1.2":{"lastResetDueTo":"Waiting for NHT"}}',
      ],
    });
    await stopBgpd();
    await expect.poll(() => lost).toBe(1);
    await startBgpd();
    await driver.apply(wanted, signal);
    expect(driver.problems()).toEqual([
      'FRR does not announce 10.244.1.0/24: it knows no route there, and its "router bgp 64512" lacks "no bgp network import-check"',
      'BGP session with 192.168.1.2 of FRR is not up: Active, Waiting for NHT',
    ]);
  });

  test('takes all back, once', async () => {
    answers['show running-config'] = [running('192.168.1.2')];
    await driver.apply(undefined, signal);
    expect(told).toEqual([
      'enable',
      'configure terminal',
      'router bgp 64512',
      'no neighbor 192.168.1.2',
      'exit',
      'no router bgp 64512',
      'end',
    ]);
    // A session that is not needed is not kept, and nobody has to hear of its end.
    await expect.poll(() => sockets.every(({ destroyed }) => destroyed)).toBe(true);
    await driver.apply(undefined, signal);
    expect([told.length, lost]).toEqual([7, 0]);
  });

  test('takes all back again from a bgpd that read it from its file when it was started again', async () => {
    answers['show running-config'] = [running('192.168.1.2')];
    await driver.apply(undefined, signal);
    answers['show running-config'] = ['hostname a\n'];
    await stopBgpd();
    await startBgpd();
    // It has not read its file yet.
    utimesSync(vtySocket(), 999, 999);
    await driver.apply(undefined, signal);
    told = [];
    answers['show running-config'] = [running('192.168.1.2')];
    utimesSync(vtySocket(), 900, 900);
    await driver.apply(undefined, signal);
    expect(told).toContain('no neighbor 192.168.1.2');
    told = [];
    await driver.apply(undefined, signal);
    expect([told, slept]).toEqual([[], []]);
  });

  test('an FRR that does not run has nothing to take back, until it does', async () => {
    await stopBgpd();
    await driver.apply(undefined, signal);
    expect(driver.problems()).toEqual([]);
    answers['show running-config'] = [running('192.168.1.2')];
    await startBgpd();
    await driver.apply(undefined, signal);
    expect(told).toContain('no router bgp 64512');
  });

  test('who gives up gets the reason', async () => {
    const given = AbortSignal.abort(new Error('stopped'));
    await expect(driver.apply(speaker(), given)).rejects.toThrow('stopped');
  });
});
