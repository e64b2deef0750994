import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openNodeSys } from '#pkg/sys/node-ffi.ts';
import { installPlugins, removePlugins, type InstallReport } from './install.ts';
import { launcherMark, type PluginSource } from './plugin-files.ts';

const sys = openNodeSys();
const names = ['podwire', 'bridge', 'portmap'];
let directory: string;
let bin: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'podwire-install-'));
  bin = join(directory, 'opt/cni/bin');
});
afterEach(() => rmSync(directory, { recursive: true }));

/** A version of what a build makes: programs that do nothing. */
function build(version: string, withLauncher = true): PluginSource {
  const [executable, launcher] = [join(directory, `cni-${version}`), join(directory, version)];
  for (const [file, content] of [
    [executable, `executable ${version}`],
    [launcher, `${launcherMark} ${version}`],
  ] as const) {
    copyFileSync('/bin/true', file);
    appendFileSync(file, content);
  }
  return { executable, launcher: withLauncher ? launcher : undefined, names };
}

function install(source: PluginSource, replaceForeign = false): Promise<InstallReport> {
  return installPlugins(sys, bin, { source, replaceForeign });
}

/** What each file is: the version it was put from, or its content. */
function files(): Readonly<Record<string, string>> {
  return Object.fromEntries(
    readdirSync(bin).map((name) => {
      const path = join(bin, name);
      const text = readFileSync(path, 'latin1');
      const version = new RegExp(`(?:executable|${launcherMark}) .*$`).exec(text)?.[0] ?? text;
      return [name, version.replace(launcherMark, 'launcher')];
    }),
  );
}

const installed = (version: string): object => ({
  'podwire-cni': `executable ${version}`,
  podwire: `launcher ${version}`,
  bridge: `launcher ${version}`,
  portmap: `launcher ${version}`,
});

describe('installPlugins()', () => {
  it('puts every plugin in place, executable, in a directory that it makes', async () => {
    const { changed, left } = await install(build('one'));
    expect([changed, left]).toEqual([['podwire-cni', ...names], []]);
    expect(files()).toEqual(installed('one'));
    for (const name of readdirSync(bin)) expect(statSync(join(bin, name)).mode & 0o777).toBe(0o755);
  });

  it('does nothing where all is right, and heals what was changed', async () => {
    await install(build('one'));
    const inode = (): number => statSync(join(bin, 'bridge')).ino;
    const before = inode();
    expect(await install(build('one'))).toEqual({ changed: [], left: [] });
    expect(inode()).toBe(before);
    rmSync(join(bin, 'portmap'));
    chmodSync(join(bin, 'bridge'), 0o644);
    writeFileSync(join(bin, 'podwire'), '');
    expect((await install(build('one'))).changed).toEqual(names);
    expect(files()).toEqual(installed('one'));
  });

  it('puts a newer version over an older one, and clears what a killed one left', async () => {
    await install(build('one'));
    writeFileSync(join(bin, '.podwire-install-bridge'), 'half of it');
    expect((await install(build('two'))).changed).toEqual(['podwire-cni', ...names]);
    expect(files()).toEqual(installed('two'));
  });

  it('leaves plugins of others alone, until it is told to replace them', async () => {
    await install(build('one'));
    for (const name of names) rmSync(join(bin, name));
    writeFileSync(join(bin, 'bridge'), 'of a package', { mode: 0o755 });
    const packaged = join(directory, 'packaged');
    writeFileSync(packaged, 'packaged');
    symlinkSync(packaged, join(bin, 'portmap'));
    expect(await install(build('one'))).toEqual({
      changed: ['podwire'],
      left: ['bridge', 'portmap'],
    });
    expect((await install(build('one'), true)).changed).toEqual(['bridge', 'portmap']);
    const { '.bridge.podwire-replaced': kept, ...rest } = files();
    expect(kept).toBe('of a package');
    expect(rest).toMatchObject(installed('one'));
    // The package comes with a newer one.
    rmSync(join(bin, 'bridge'));
    writeFileSync(join(bin, 'bridge'), 'of a newer package', { mode: 0o755 });
    await install(build('one'), true);
    expect(files()).toMatchObject({ '.bridge.podwire-replaced': 'of a newer package' });
    const removed = await removePlugins(sys, bin, build('one'));
    expect(removed.changed).toEqual([...names, 'podwire-cni']);
    expect(files()).toEqual({ bridge: 'of a newer package', portmap: 'packaged' });
    expect(readlinkSync(join(bin, 'portmap'))).toBe(packaged);
  });

  it('makes links to the executable where there is no launcher', async () => {
    await install(build('one', false));
    expect(readlinkSync(join(bin, 'bridge'))).toBe('podwire-cni');
    expect(await install(build('one', false))).toEqual({ changed: [], left: [] });
    await install(build('one'));
    expect(files()).toEqual(installed('one'));
    await install(build('one', false));
    await removePlugins(sys, bin, build('one'));
    expect(readdirSync(bin)).toEqual([]);
  });

  it('says what it could not do, and leaves whole files', async () => {
    const source = build('one');
    await install(source);
    const broken = { ...build('two'), launcher: join(directory, 'nowhere') };
    await expect(install(broken)).rejects.toThrow(`Cannot install CNI plugins in ${bin}`);
    expect(files()).toEqual({ ...installed('one'), 'podwire-cni': 'executable one' });
  });

  it('says so where the kernel makes no directory', async () => {
    const wish = { source: build('one'), replaceForeign: false };
    await expect(installPlugins(sys, '/proc/podwire', wish)).rejects.toMatchObject({
      message: 'Cannot install CNI plugins in /proc/podwire',
      cause: { message: "ENOENT: no such file or directory, mkdir '/proc/podwire'" },
    });
  });

  it('never lets a caller meet anything but a whole program', async () => {
    const versions = [build('one'), build('two')] as const;
    await install(versions[0]);
    const script = 'for i; do "$i" || echo failed; done; echo called';
    const again = 'while [ ! -e "$0" ]; do sh -c "$1" sh "$2/bridge" "$2/podwire-cni"; done';
    const stop = join(directory, 'stop');
    const caller = spawn('sh', ['-c', again, stop, script, bin]);
    let said = '';
    caller.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
    caller.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
    for (let i = 1; i < 12 || said.split('called').length < 8; i++) {
      await install(versions[i % 2 === 0 ? 0 : 1]);
      // Two at once: one waits for the other.
      if (i % 5 === 0) await Promise.all([install(versions[1]), removeForeign()]);
    }
    writeFileSync(stop, '');
    await once(caller, 'close');
    expect(new Set(said.trim().split('\n'))).toEqual(new Set(['called']));
  });
});

/** Nothing to remove, and yet the lock is taken. */
async function removeForeign(): Promise<void> {
  await removePlugins(sys, join(directory, 'opt'), { executable: '', launcher: undefined, names });
}
