/** The runner with a program in the place of qemu: what it says, and that it ends. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { chooseAccelerator } from './accelerator.ts';
import { bootAndRun } from './boot.ts';
import { qemu, type Machine } from './qemu.ts';

const path = process.env['PATH'] ?? '';
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
    accelerator: 'tcg',
    kernelImage: join(dir, 'kernel'),
    initrd: join(dir, 'initrd'),
    consoleLog: join(dir, 'console'),
    exitCodeFile: join(dir, 'code'),
    shareRoot: false,
  };
});
afterEach(() => {
  process.env['PATH'] = path;
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

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
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
    asQemu(`echo words; echo ${code} > code`);
    expect(await run()).toBe(expected);
    expect({ output, starts: starts().length }).toEqual({ output: 'words\n', starts: 1 });
  });

  it('passes on what is printed while the machine runs', async () => {
    asQemu('echo first; until [ -e seen ]; do sleep 0.01; done; echo second; echo 0 > code');
    const over = run();
    await expect.poll(() => output).toBe('first\n');
    writeFileSync(join(dir, 'seen'), '');
    expect(await over).toBe(0);
    expect(output).toBe('first\nsecond\n');
  });

  it('ends a machine that takes too long, and shows its console', async () => {
    asQemu('echo words; echo Kernel panic > console; exec sleep 1000');
    expect(await run(0.3)).toBe(3);
    expect(said.join('\n')).toMatch(/no exit code \(not finished after 0\.3 s\)[^]*Kernel panic/);
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
    asQemu('[ $(wc -l < starts) -lt 3 ] || { echo words; echo 0 > code; }');
    expect(await run()).toBe(0);
    expect(starts()).toHaveLength(3);
    rmSync(join(dir, 'code'));
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

  it('says what qemu complained of', async () => {
    asQemu('echo no such device >&2; exit 1');
    await expect(run()).rejects.toThrow(`Cannot run ${qemu}: no such device`);
  });
});

describe('chooseAccelerator()', () => {
  const choose = (device = join(dir, 'kvm')) =>
    chooseAccelerator({
      kernelImage: machine.kernelImage,
      busybox: join(dir, 'kvm'),
      work: dir,
      signal: new AbortController().signal,
      device,
      answers: join(dir, 'answers'),
      timeoutSeconds: 0.3,
    });

  it('starts nothing where there is no KVM', async () => {
    asQemu('');
    expect(await choose('/nonexistent/kvm')).toBe('tcg');
    expect(starts()).toEqual([]);
  });

  it.each([
    ['boots and ends', 'case "$*" in *"-accel kvm"*) ;; *) exit 1;; esac', 'kvm'],
    ['hangs', 'exec sleep 1000', 'tcg'],
    ['fails', 'exit 1', 'tcg'],
  ])('a machine under KVM that %s, tried once', async (_, script, expected) => {
    writeFileSync(join(dir, 'kvm'), '');
    asQemu(script);
    expect(await choose()).toBe(expected);
    expect(await choose()).toBe(expected);
    expect(starts()).toHaveLength(1);
    expect(starts().filter(isAlive)).toEqual([]);
  });
});
