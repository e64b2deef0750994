import {
  chmodSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { formatKey } from '#pkg/host-network/wireguard-key.ts';
import { ensurePrivateKey } from './private-key.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'podwire-key-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

test('makes a key once, for nobody else to read', async () => {
  const path = join(dir, 'state/wireguard.key');
  const key = await ensurePrivateKey(path);
  expect(await ensurePrivateKey(path)).toEqual(key);
  expect(readFileSync(path, 'utf8')).toBe(`${formatKey(key)}\n`);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(readdirSync(join(dir, 'state'))).toEqual(['wireguard.key']);
});

test('a key that others may read is kept from them, the same key', async () => {
  const path = join(dir, 'wireguard.key');
  const key = await ensurePrivateKey(path);
  for (const mode of [0o644, 0o660, 0o604]) {
    chmodSync(path, mode);
    expect(await ensurePrivateKey(path)).toEqual(key);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  }
  chmodSync(path, 0o400);
  await ensurePrivateKey(path);
  expect(statSync(path).mode & 0o777).toBe(0o400);
});

test('follows a link to the key, and says where one leads to nothing', async () => {
  const [path, target] = [join(dir, 'wireguard.key'), join(dir, 'elsewhere')];
  symlinkSync(target, path);
  await expect(ensurePrivateKey(path)).rejects.toThrow(
    `Cannot use ${path}: expected a file or nothing, and it is a link to nothing`,
  );
  const key = await ensurePrivateKey(target);
  chmodSync(target, 0o644);
  expect(await ensurePrivateKey(path)).toEqual(key);
  expect(statSync(target).mode & 0o777).toBe(0o600);
});

test('does not overwrite what it cannot read', async () => {
  const path = join(dir, 'wireguard.key');
  writeFileSync(path, 'no key\n');
  await expect(ensurePrivateKey(path)).rejects.toThrow(
    `Cannot use ${path}: expected a private key, 32 bytes in base64`,
  );
  expect(readFileSync(path, 'utf8')).toBe('no key\n');
});
