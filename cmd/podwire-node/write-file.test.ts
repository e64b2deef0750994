import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { writeFileIfChanged } from './write-file.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'podwire-write-'));
});
afterEach(() => rm(dir, { recursive: true }));

describe('writeFileIfChanged()', () => {
  test('makes the directory and the file, and leaves nothing beside it', async () => {
    const path = join(dir, 'net.d', '10-podwire.conflist');
    expect(await writeFileIfChanged(path, 'one')).toBe(true);
    expect(await readFile(path, 'utf8')).toBe('one');
    expect(await readdir(join(dir, 'net.d'))).toEqual(['10-podwire.conflist']);
  });

  test('leaves a file with the same text alone, and replaces another one whole', async () => {
    const path = join(dir, 'node.json');
    await writeFile(path, 'one');
    const before = await stat(path);
    expect(await writeFileIfChanged(path, 'one')).toBe(false);
    expect((await stat(path)).ino).toBe(before.ino);
    expect(await writeFileIfChanged(path, 'two')).toBe(true);
    // Another inode: a reader of the old one still has the whole old text.
    expect((await stat(path)).ino).not.toBe(before.ino);
  });

  test('says which file it cannot write', async () => {
    await writeFile(join(dir, 'file'), '');
    const path = join(dir, 'file', 'node.json');
    await expect(writeFileIfChanged(path, 'one')).rejects.toThrow(path);
  });
});
