import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Sysctl } from '#pkg/host-network/object.ts';
import { WrittenFiles } from './written-files.ts';
import { upkeepText } from './upkeep.ts';

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
  const text = (): string => upkeepText({ settings, read: (path) => values.get(path), files });
  const before = text();
  expect(text()).toBe(before);
  values.set('net/bridge/none', '0');
  const come = text();
  expect(come).not.toBe(before);
  values.set('net/ipv4/ip_forward', '0');
  expect(text()).not.toBe(come);
});

test('tells a file that somebody deletes or overwrites, and none that we write', async () => {
  const files = new WrittenFiles();
  const path = join(dir, 'run/node.json');
  const text = (): string => upkeepText({ settings: [], read: () => undefined, files });
  const nothing = text();
  await files.write(path, 'one\n');
  expect(text()).toBe(nothing);
  await files.write(path, 'another\n');
  expect(text()).toBe(nothing);
  writeFileSync(path, 'one\n');
  const strange = text();
  expect(strange).not.toBe(nothing);
  rmSync(path);
  expect(text()).toBe(strange);
  await files.write(path, 'another\n');
  expect(text()).toBe(nothing);
});
