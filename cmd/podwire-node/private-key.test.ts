import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
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

test('does not overwrite what it cannot read', async () => {
  const path = join(dir, 'wireguard.key');
  writeFileSync(path, 'no key\n');
  await expect(ensurePrivateKey(path)).rejects.toThrow(
    `Cannot use ${path}: expected a private key, 32 bytes in base64`,
  );
  expect(readFileSync(path, 'utf8')).toBe('no key\n');
});
