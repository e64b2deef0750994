import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { makeDirectory } from './make-directory.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'podwire-files-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

it.each(['a', 'b/c/d', 'e/f/', 'g//h'])('makes %s, also again', (path) => {
  for (let turn = 0; turn < 2; turn++) makeDirectory(join(dir, path), 0o700);
  expect(statSync(join(dir, path)).mode & 0o7777).toBe(0o700);
});

it('takes a link to a directory for one', () => {
  makeDirectory(join(dir, 'real'));
  symlinkSync('real', join(dir, 'link'));
  makeDirectory(join(dir, 'link'));
  makeDirectory(join(dir, 'link/child'));
  expect(statSync(join(dir, 'real/child')).isDirectory()).toBe(true);
});

it.each([
  ['a file is there', 'file', 'EEXIST'],
  ['a file is in the way', 'file/child', 'ENOTDIR'],
  ['a link leads nowhere', 'nowhere', 'EEXIST'],
])('says so when %s', (_, path, code) => {
  writeFileSync(join(dir, 'file'), '');
  symlinkSync('missing', join(dir, 'nowhere'));
  expect(() => makeDirectory(join(dir, path))).toThrow(expect.objectContaining({ code }));
});

// With mkdirSync's `recursive` this test never ends.
it.each(['/proc/podwire', '/proc/podwire/a/b'])('ends where the kernel makes none: %s', (path) => {
  expect(() => makeDirectory(path)).toThrow(
    expect.objectContaining({
      message: "ENOENT: no such file or directory, mkdir '/proc/podwire'",
    }),
  );
});
