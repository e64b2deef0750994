import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Sysctl } from '#pkg/host-network/object.ts';
import { WrittenFiles } from './written-files.ts';
import { upkeepState } from './upkeep.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'podwire-upkeep-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const settings: readonly Sysctl[] = [
  { kind: 'sysctl', path: 'net/ipv4/ip_forward', value: '1', optional: false },
  { kind: 'sysctl', path: 'net/bridge/none', value: '1', optional: true },
];

test('tells a setting that is another, and one that has come', async () => {
  const files = new WrittenFiles();
  const values = new Map([['net/ipv4/ip_forward', '1']]);
  const state = (): unknown => upkeepState({ settings, read: (path) => values.get(path), files });
  const before = state();
  expect(state()).toEqual(before);
  values.set('net/bridge/none', '0');
  const come = state();
  expect(come).not.toEqual(before);
  values.set('net/ipv4/ip_forward', '0');
  expect(state()).not.toEqual(come);
});

test('tells a file that somebody deletes or overwrites, also a second time, and none that we write', async () => {
  const files = new WrittenFiles();
  const path = join(dir, 'run/node.json');
  const state = (): unknown => upkeepState({ settings: [], read: () => undefined, files });
  const nothing = state();
  await files.write(path, 'one\n');
  expect(state()).toEqual(nothing);
  await files.write(path, 'another\n');
  expect(state()).toEqual(nothing);
  writeFileSync(path, 'one\n');
  const strange = state();
  expect(strange).not.toEqual(nothing);
  rmSync(path);
  expect(state()).toEqual(strange);
  await files.write(path, 'another\n');
  expect(state()).toEqual(nothing);
  // Again, before anybody looked in between.
  rmSync(path);
  expect(state()).not.toEqual(strange);
});
