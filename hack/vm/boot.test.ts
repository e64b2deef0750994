/** The runner with a program in the place of qemu: what it says, and that it ends. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
} from 'node:fs';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { chooseAccelerator } from './accelerator.ts';
import { bootAndRun } from './boot.ts';
import type { Machine } from './machine.ts';
import { qemu, qemuCommand } from './qemu.ts';
import { startsUserMode } from './user-mode.ts';
import { UnnamedFile } from '#hack/unnamed-file.ts';

const path = process.env['PATH'] ?? '';
const kernelImage = '/nonexistent/kernel';
let dir: string;
let machine: Machine;
let output: string;
let said: string[];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'podwire-boot-'));
  process.env['PATH'] = `${dir}${delimiter}${path}`;
  output = '';
  said = [];
  machine = {
    command: qemuCommand({ accelerator: 'tcg', kernelImage, shareRoot: false }),
    initrd: new UnnamedFile(dir),
    console: new UnnamedFile(dir),
    exitCode: new UnnamedFile(dir),
  };
});
afterEach(() => {
  process.env['PATH'] = path;
  for (const file of [machine.initrd, machine.console, machine.exitCode]) file[Symbol.dispose]();
  rmSync(dir, { recursive: true });
});

/** What is run as qemu; each start adds its process to a file. */
function asQemu(script: string): void {
  const lines = ['#!/bin/sh', `cd ${dir}`, 'echo $$ >> starts', script];
  writeFileSync(join(dir, qemu), `${lines.join('\n')}\n`, { mode: 0o755 });
}

function starts(): number[] {
  const file = join(dir, 'starts');
  return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').map(Number) : [];
}

/** One that has ended may wait for its parent to look. */
function isAlive(pid: number): boolean {
  const file = `/proc/${pid}/stat`;
  return existsSync(file) && !/\) Z /.test(readFileSync(file, 'utf8'));
}

function run(timeoutSeconds = 60, signal = new AbortController().signal): Promise<number> {
  const onOutput = (bytes: Uint8Array): void => void (output += Buffer.from(bytes).toString());
  return bootAndRun(machine, { timeoutSeconds, signal, onOutput, say: (line) => said.push(line) });
}

describe('bootAndRun()', () => {
  it.each([
    [0, 0],
    [7, 7],
    // To the caller 2 means that there can be no machine here.
    [2, 1],
  ])('a command that ends with %i gives %i', async (code, expected) => {
    asQemu(`echo words; echo ${code} > /dev/fd/5`);
    expect(await run()).toBe(expected);
    expect({ output, starts: starts().length }).toEqual({ output: 'words\n', starts: 1 });
  });

  it('passes on what is printed while the machine runs', async () => {
    asQemu('echo first; until [ -e seen ]; do sleep 0.01; done; echo second; echo 0 > /dev/fd/5');
    const over = run();
    await expect.poll(() => output).toBe('first\n');
    writeFileSync(join(dir, 'seen'), '');
    expect(await over).toBe(0);
    expect(output).toBe('first\nsecond\n');
  });

  it('ends a machine that takes too long, and shows its console', async () => {
    asQemu('echo words; echo Kernel panic > /dev/fd/4; exec sleep 1000');
    expect(await run(4)).toBe(3);
    expect(said.join('\n')).toMatch(/no exit code \(not finished after 4 s\)[^]*Kernel panic/);
    expect(starts().filter(isAlive)).toEqual([]);
  });

  it('ends the machine when it is to end itself', async () => {
    asQemu('echo words; exec sleep 1000');
    const stop = new AbortController();
    const over = run(60, stop.signal);
    await expect.poll(() => output).toBe('words\n');
    stop.abort();
    expect(await over).toBe(3);
    expect(starts().filter(isAlive)).toEqual([]);
  });

  it('boots again when the kernel died at once, and not for ever', async () => {
    asQemu('[ $(wc -l < starts) -lt 3 ] || { echo words; echo 0 > /dev/fd/5; }');
    expect(await run()).toBe(0);
    expect(starts()).toHaveLength(3);
    ftruncateSync(machine.exitCode.fd);
    rmSync(join(dir, 'starts'));
    asQemu('');
    expect(await run()).toBe(3);
    expect(starts()).toHaveLength(3);
  });

  it('does not run tests again that ended without an answer', async () => {
    asQemu('echo words');
    expect(await run()).toBe(3);
    expect(starts()).toHaveLength(1);
  });

  it('starts nothing when it was to end before', async () => {
    asQemu('echo words; exec sleep 1000');
    expect(await run(0.5, AbortSignal.abort())).toBe(3);
    expect(starts()).toEqual([]);
    expect(said.join()).toContain('ended by a signal');
  });

  it('waits for nobody else who holds the output of a machine that was ended', async () => {
    asQemu('sleep 1000 & echo $! >> starts; echo words; exec sleep 1000');
    expect(await run(4)).toBe(3);
    const [machinePid = 0, otherPid = 0] = starts();
    expect([machinePid, otherPid].map(isAlive)).toEqual([false, true]);
    process.kill(otherPid);
  });

  it('has one time for all attempts', async () => {
    asQemu('sleep 0.4');
    expect(await run(0.5)).toBe(3);
    expect(said.join()).toContain('not finished after 0.5 s');
  });

  it('ends a line that the machine did not end', async () => {
    asQemu('printf words; echo 0 > /dev/fd/5');
    expect(await run()).toBe(0);
    expect(output).toBe('words\n');
  });

  it('says which signal ended the machine', async () => {
    asQemu('kill -KILL $$');
    await expect(run()).rejects.toThrow(`Cannot run ${qemu}: ended by SIGKILL`);
  });

  it('says what qemu complained of', async () => {
    asQemu('echo no such device >&2; exit 1');
    await expect(run()).rejects.toThrow(`Cannot run ${qemu}: no such device`);
  });
});

describe('runMachine()', () => {
  it('has the machine end with whoever runs it, also by SIGKILL, and no file stays', async () => {
    asQemu('echo words; exec sleep 1000');
    const folder = JSON.stringify(dir);
    const program = `
      import { runMachine } from ${JSON.stringify(join(import.meta.dirname, 'machine.ts'))};
      import { UnnamedFile } from ${JSON.stringify(join(import.meta.dirname, '../unnamed-file.ts'))};
      const file = () => new UnnamedFile(${folder});
      const files = { initrd: file(), console: file(), exitCode: file() };
      const machine = { command: ['${qemu}'], ...files };
      const onOutput = (bytes) => void process.stdout.write(bytes);
      const { signal } = new AbortController();
      await runMachine(machine, { timeoutSeconds: 60, signal, onOutput });`;
    const runner = spawn(process.execPath, ['--input-type=module', '-e', program]);
    await once(runner.stdout, 'data');
    const [pid = 0] = starts();
    expect(isAlive(pid)).toBe(true);
    runner.kill('SIGKILL');
    await expect.poll(() => isAlive(pid)).toBe(false);
    expect(readdirSync(dir).toSorted()).toEqual([qemu, 'starts'].toSorted());
  });
});

describe('chooseAccelerator()', () => {
  const choose = (device = join(dir, 'kvm'), timeoutSeconds = 60) =>
    chooseAccelerator({
      kernelImage,
      busybox: join(dir, 'kvm'),
      signal: new AbortController().signal,
      device,
      answers: join(dir, 'answers'),
      timeoutSeconds,
    });

  it('starts nothing where there is no KVM', async () => {
    asQemu('');
    expect(await choose('/nonexistent/kvm')).toBe('tcg');
    expect(starts()).toEqual([]);
  });

  it('keeps the answer until the next boot, and none that was half written', async () => {
    writeFileSync(join(dir, 'kvm'), '');
    mkdirSync(join(dir, 'answers'));
    writeFileSync(join(dir, 'answers/accelerator-former'), 'kvm');
    asQemu('exit 1');
    expect(await choose()).toBe('tcg');
    const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    expect(readdirSync(join(dir, 'answers'))).toEqual([`accelerator-${bootId}`]);
  });

  it.each([
    ['boots and ends', 'case "$*" in *"-accel kvm"*) ;; *) exit 1;; esac', 'kvm'],
    ['hangs', 'exec sleep 1000', 'tcg'],
    ['fails', 'exit 1', 'tcg'],
  ])('a machine under KVM that %s, tried once', async (_, script, expected) => {
    writeFileSync(join(dir, 'kvm'), '');
    asQemu(script);
    const timeoutSeconds = script.includes('sleep') ? 0.3 : 60;
    expect(await choose(undefined, timeoutSeconds)).toBe(expected);
    expect(await choose(undefined, timeoutSeconds)).toBe(expected);
    expect(starts()).toHaveLength(1);
    expect(starts().filter(isAlive)).toEqual([]);
  });
});

describe('startsUserMode()', () => {
  it.each([
    ['boots and ends', 'echo 0 > /dev/fd/5', true],
    ['hangs', 'exec sleep 1000', false],
    ['aborts', 'kill -ABRT $$', false],
    ['is forbidden what it needs', 'exit 1', false],
  ])('user-mode Linux that %s', async (_, script, expected) => {
    const image = join(dir, 'linux');
    // In the place of unshare(1), which needs root.
    writeFileSync(join(dir, 'unshare'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const busybox = join(dir, 'unshare');
    const { signal } = new AbortController();
    const timeoutSeconds = expected ? 60 : 0.3;
    expect(await startsUserMode({ image, busybox, signal, timeoutSeconds })).toBe(expected);
  });
});
