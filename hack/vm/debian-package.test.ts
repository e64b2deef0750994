/** The cache of packages, with programs in the place of apt's and dpkg. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { unpackedFile, unpackedPackage, type Packages } from './debian-package.ts';
import { findKernel } from './kernel.ts';

const path = process.env['PATH'] ?? '';
let dir: string;
let said: string[];
let of: Packages & { readonly cache: string };

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'podwire-packages-'));
  process.env['PATH'] = `${join(dir, 'bin')}${delimiter}${path}`;
  mkdirSync(join(dir, 'bin'));
  said = [];
  const say = (line: string): void => void said.push(line);
  of = { signal: new AbortController().signal, say, cache: join(dir, 'cache') };
  program('apt-cache', `case $1 in policy) echo "  Candidate: $(cat version)";; esac`);
  program('apt-get', 'case "$*" in *download*) echo deb > "$OLDPWD/tool.deb";; esac');
  program('dpkg', 'mkdir "$3" && cp "$2" "$3/unpacked"');
  writeFileSync(join(dir, 'version'), '1.0');
});
afterEach(() => {
  process.env['PATH'] = path;
  rmSync(dir, { recursive: true });
});

/** Works in our folder, notes how it is called; $OLDPWD is where it was called. */
function program(name: string, script: string): void {
  const lines = ['#!/bin/sh', `cd ${dir}; echo "${name} $*" >> calls`, script];
  writeFileSync(join(dir, 'bin', name), `${lines.join('\n')}\n`, { mode: 0o755 });
}

function calls(start: string): string[] {
  const all = existsSync(join(dir, 'calls')) ? readFileSync(join(dir, 'calls'), 'utf8') : '';
  return all.split('\n').filter((line) => line.startsWith(start));
}

const unpack = (using: Packages = of): Promise<string> =>
  unpackedPackage(using, async () => 'tool', /^tool_/);

describe('unpackedPackage()', () => {
  it('downloads once', async () => {
    const folder = await unpack();
    expect(folder).toBe(join(of.cache, 'tool_1.0'));
    expect(readdirSync(folder)).toEqual(['unpacked']);
    expect(await unpack()).toBe(folder);
    expect(calls('dpkg')).toHaveLength(1);
    expect(readdirSync(of.cache)).toEqual(['tool_1.0']);
  });

  it('is whole when several want it at once', async () => {
    const folders = await Promise.all([unpack(), unpack(), unpack()]);
    expect(new Set(folders)).toEqual(new Set([join(of.cache, 'tool_1.0')]));
    expect(readdirSync(of.cache)).toEqual(['tool_1.0']);
    // Who was slower takes what is there, and does not begin again.
    expect(calls('apt-get -q update')).toEqual([]);
  });

  it('has a name that every file system takes, whatever a version is', async () => {
    writeFileSync(join(dir, 'version'), '2:1.0~rc+1-3');
    expect(await unpack()).toBe(join(of.cache, 'tool_2_1.0_rc+1-3'));
  });

  it('reads what apt says in English, whatever the language here', async () => {
    const words = 'case $LC_ALL in C) echo "  Candidate: 1.0";; *) echo "  Kandidat: 1.0";; esac';
    program('apt-cache', words);
    expect(await unpack()).toBe(join(of.cache, 'tool_1.0'));
  });

  it('says so when apt has no such package', async () => {
    writeFileSync(join(dir, 'version'), '(none)');
    await expect(unpack()).rejects.toThrow('Cannot download tool: apt knows no such package');
  });

  it('has apt read its lists, after another one, when the archive has not what they name', async () => {
    program(
      'apt-get',
      `case "$*" in
        *update*) [ -e tried ] || { echo > tried; echo "E: Could not get lock /x/lists/lock" >&2; exit 100; }
           echo 1.1 > version;;
        *) [ "$(cat version)" = 1.1 ] || { echo "E: 404 Not Found" >&2; exit 100; }
           echo deb > "$OLDPWD/tool.deb";;
      esac`,
    );
    expect(await unpack()).toBe(join(of.cache, 'tool_1.1'));
    expect(said).toEqual([]);
  });

  it('takes the newest that is here when nothing can be had, and says so', async () => {
    for (const version of ['1.9', '1.10'])
      mkdirSync(join(of.cache, `tool_${version}`), { recursive: true });
    mkdirSync(join(of.cache, 'toolbox_2'));
    program('apt-get', 'echo "E: Temporary failure resolving" >&2; exit 100');
    expect(await unpack()).toBe(join(of.cache, 'tool_1.10'));
    expect(said.join()).toMatch(
      /^tool_1\.10 as it is here: Cannot run apt-get .*failure resolving/,
    );
  });

  it('says what failed when there is none', async () => {
    program('apt-get', 'echo "E: Temporary failure resolving" >&2; exit 100');
    await expect(unpack()).rejects.toThrow(
      /^Cannot run apt-get .*: E: Temporary failure resolving$/,
    );
    expect(readdirSync(of.cache)).toEqual([]);
  });

  it.each(['dpkg', 'sync'])('leaves nothing when %s fails, and does it again', async (name) => {
    const isDpkg = name === 'dpkg';
    program(name, `${isDpkg ? 'mkdir "$3"; ' : ''}echo "No space left on device" >&2; exit 2`);
    await expect(unpack()).rejects.toThrow('No space left on device');
    expect(readdirSync(of.cache)).toEqual([]);
    program(name, isDpkg ? 'mkdir "$3" && cp "$2" "$3/unpacked"' : '');
    expect(readdirSync(await unpack())).toEqual(['unpacked']);
  });

  it('ends at once with its signal, in the middle of a download', async () => {
    program('apt-get', 'echo $$ > pid; exec sleep 1000');
    const stop = new AbortController();
    const over = unpack({ ...of, signal: stop.signal });
    await expect.poll(() => existsSync(join(dir, 'pid'))).toBe(true);
    stop.abort(new Error('enough'));
    await expect(over).rejects.toThrow('enough');
    expect(readdirSync(of.cache)).toEqual([]);
  });

  it('removes what killed runs left, and not what others are at', async () => {
    for (const name of ['new-dead', 'new-alive'])
      mkdirSync(join(of.cache, name), { recursive: true });
    mkdirSync(join(of.cache, 'tool_0.9'));
    const hourAgo = Date.now() / 1000 - 3600;
    for (const name of ['new-dead', 'tool_0.9']) utimesSync(join(of.cache, name), hourAgo, hourAgo);
    await unpack();
    expect(readdirSync(of.cache).toSorted()).toEqual(['new-alive', 'tool_0.9', 'tool_1.0']);
  });
});

describe('unpackedFile()', () => {
  const file = (): Promise<string> => unpackedFile(of, join(dir, 'k.deb'), async () => undefined);

  it('tells apart files of one name', async () => {
    writeFileSync(join(dir, 'k.deb'), 'one');
    const first = await file();
    expect(await file()).toBe(first);
    writeFileSync(join(dir, 'k.deb'), 'two');
    expect(readFileSync(join(await file(), 'unpacked'), 'utf8')).toBe('two');
  });

  it('is prepared once, before it has its name', async () => {
    writeFileSync(join(dir, 'k.deb'), 'one');
    const prepared: string[] = [];
    const prepare = async (folder: string): Promise<void> => {
      prepared.push(folder);
      writeFileSync(join(folder, 'made'), '');
    };
    const get = (): Promise<string> => unpackedFile(of, join(dir, 'k.deb'), prepare);
    const home = await get();
    expect(await get()).toBe(home);
    expect(readdirSync(home).toSorted()).toEqual(['made', 'unpacked']);
    expect(prepared).toHaveLength(1);
    expect(prepared).not.toContain(home);
  });

  it('says which file is not there', async () => {
    await expect(file()).rejects.toThrow(
      `Cannot unpack ${join(dir, 'k.deb')}: there is no such file`,
    );
  });
});

describe('findKernel()', () => {
  const names = [
    'linux-image-6.1.0-9-amd64',
    'linux-image-6.1.0-10-amd64',
    'linux-image-6.1.0-11-cloud-amd64',
    'linux-image-6.1.0-11-amd64-unsigned',
    'linux-image-6.12.100+deb12-amd64',
    'linux-image-6.12.100+deb12-rt-amd64',
  ];

  it.each([
    ['6.1', 'linux-image-6.1.0-10-amd64'],
    ['6.1.0-9', 'linux-image-6.1.0-9-amd64'],
    ['6.12', 'linux-image-6.12.100+deb12-amd64'],
    ['6', 'linux-image-6.12.100+deb12-amd64'],
  ])('%s is %s', async (wanted, expected) => {
    program('apt-cache', `[ $1 = pkgnames ] && printf '%s\\n' ${names.join(' ')} || exit 1`);
    await expect(findKernel(of, wanted, 'busybox')).rejects.toThrow();
    expect(calls('apt-cache policy')).toContain(`apt-cache policy ${expected}`);
  });

  it('says which there are', async () => {
    program('apt-cache', `printf '%s\\n' ${names.join(' ')}`);
    const found = findKernel(of, '9.9', 'busybox');
    await expect(found).rejects.toThrow('Cannot find a kernel 9.9: apt has 6.1, 6.12');
  });
});
