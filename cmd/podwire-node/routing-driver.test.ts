import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '#pkg/clock/clock.ts';
import { parseNodeConfig } from '#pkg/config/node-config.ts';
import { parseAddress } from '#pkg/ip/address.ts';
import type { BgpSpeaker } from '#pkg/overlay/bgp-speaker.ts';
import { birdConfigTitle } from '#pkg/overlay/bird-config.ts';
import { createRoutingDriver } from './routing-driver.ts';
import { WrittenFiles } from './written-files.ts';

let dir: string;
let bgpd: Server;
/** What bgpd was told, and its one answer to all of it. */
let told: string[];
let answer: string;
const { signal } = new AbortController();
const speaker: BgpSpeaker = {
  asNumber: 64_512,
  identifier: parseAddress('192.168.1.1'),
  families: [],
};

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'podwire-routing-'));
  [told, answer] = [[], '\0\0\0\0'];
  bgpd = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (bytes: Buffer) => {
      told.push(bytes.toString().slice(0, -1));
      socket.write(answer);
    });
  });
  await new Promise<void>((resolve) => bgpd.listen(join(dir, 'bgpd.vty'), resolve));
});
afterEach(async () => {
  await new Promise((resolve) => bgpd.close(resolve));
  rmSync(dir, { recursive: true });
});

function driverOf(daemon: 'bird' | 'frr') {
  const paths = [
    'configFile: DIR/bird.conf',
    'controlSocket: DIR/bird.ctl',
    'vtySocket: DIR/bgpd.vty',
  ];
  const text = `bgp: { daemon: ${daemon}, ${paths.join(', ').replaceAll('DIR', dir)} }`;
  const { bgp } = parseNodeConfig(text, 'the test');
  return createRoutingDriver(bgp, {
    clock: { ...systemClock, sleep: async () => undefined },
    onLost: () => undefined,
    written: new WrittenFiles(),
  });
}

describe('the routing daemon that is chosen', () => {
  test('FRR: what BIRD has of ours is taken back', async () => {
    writeFileSync(join(dir, 'bird.conf'), `${birdConfigTitle}\n# of a former start\n`);
    using driver = driverOf('frr');
    answer = 'router bgp 64512\n timers bgp 1 3\nexit\n\0\0\0\0';
    await driver.apply(speaker, signal);
    expect(readFileSync(join(dir, 'bird.conf'), 'utf8')).toBe(`${birdConfigTitle}\n`);
    expect(told).toContain('route-map PODWIRE-PODS permit 10');
    expect(driver.problems()).toEqual([expect.stringContaining('lacks "bgp graceful-restart')]);
  });

  test('BIRD: what FRR has of ours is taken back', async () => {
    using driver = driverOf('bird');
    answer = 'route-map PODWIRE-PODS permit 10\nexit\n\0\0\0\0';
    await driver.apply(undefined, signal);
    expect(told).toContain('no route-map PODWIRE-PODS permit 10');
    expect(driver.problems()).toEqual([]);
  });

  test('an FRR that cannot be asked does not stop those who do not need it', async () => {
    using driver = driverOf('bird');
    answer = '% Nonsense\n\0\0\0\u0002';
    await driver.apply(undefined, signal);
    expect(driver.problems()).toEqual([
      'Cannot tell FRR to announce our pods no more: Cannot configure FRR: it refuses "show running-config": % Nonsense',
    ]);
    answer = '\0\0\0\0';
    await driver.apply(undefined, signal);
    expect(driver.problems()).toEqual([]);
  });
});
