import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { parseNetworkConfig } from './config.ts';
import { delegateFor, type CniDelegate, type ProgramOutcome, type RunProgram } from './delegate.ts';
import type { CniAddRequest, CniPlugin } from './plugin.ts';
import { emptyDns } from './result.ts';

let first = '';
let second = '';
beforeAll(() => {
  first = mkdtempSync(join(tmpdir(), 'podwire-path-'));
  second = mkdtempSync(join(tmpdir(), 'podwire-path-'));
  writeFileSync(join(first, 'plain'), '', { mode: 0o644 });
  for (const name of ['plain', 'dhcp']) writeFileSync(join(second, name), '', { mode: 0o755 });
});
afterAll(() => {
  for (const directory of [first, second]) rmSync(directory, { recursive: true });
});

const text = JSON.stringify({ cniVersion: '0.4.0', name: 'net', ipam: { type: 'dhcp' } });

function request(): CniAddRequest {
  return {
    containerId: 'a',
    ifName: 'eth0',
    netns: '/n',
    args: '',
    path: [first, second],
    environment: { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'a', OTHER: 'x' },
    config: parseNetworkConfig(text),
  };
}

/** A delegate whose program ends so; `runs` is what was run. */
function delegate(
  type: string,
  outcome: ProgramOutcome,
): { readonly plugin: CniDelegate; readonly runs: Parameters<RunProgram>[] } {
  const runs: Parameters<RunProgram>[] = [];
  const runProgram: RunProgram = (...call) => {
    runs.push(call);
    return outcome;
  };
  return { plugin: delegateFor(type, { own: new Map(), runProgram }), runs };
}

const done: ProgramOutcome = { exitCode: 0, stdout: '' };

describe('a plugin that is not ours', () => {
  it('gets our environment and configuration, and a command of its own', () => {
    const { plugin, runs } = delegate('dhcp', done);
    plugin.del(request());
    const environment = { CNI_COMMAND: 'DEL', CNI_CONTAINERID: 'a', OTHER: 'x' };
    expect(runs).toEqual([[join(second, 'dhcp'), { input: text, environment }]]);
  });

  it.each(['check', 'status', 'gc'] as const)('is asked to %s', (command) => {
    const { plugin, runs } = delegate('dhcp', done);
    plugin[command](request());
    expect(runs[0]?.[1].environment['CNI_COMMAND']).toBe(command.toUpperCase());
  });

  it('answers in its version, or in that of the configuration', () => {
    for (const version of [
      { cniVersion: '0.2.0', ip4: { ip: '10.0.0.2/24' } },
      { ips: [{ version: '4', address: '10.0.0.2/24' }] },
    ]) {
      const { plugin } = delegate('dhcp', { exitCode: 0, stdout: JSON.stringify(version) });
      expect(plugin.add(request()).ips.map((ip) => formatPrefix(ip.address))).toEqual([
        '10.0.0.2/24',
      ]);
    }
  });

  it('has its error passed on as it is', () => {
    const error = { code: 101, msg: 'no lease', details: 'server silent' };
    const { plugin } = delegate('dhcp', { exitCode: 1, stdout: JSON.stringify(error) });
    expect(() => plugin.add(request())).toThrow(
      expect.objectContaining({ cniCode: 101, message: 'no lease', hint: 'server silent' }),
    );
  });

  it.each([
    [{ exitCode: 2, stdout: 'panic' }, 'it exited with 2 without an error document'],
    [{ exitCode: undefined, stdout: '' }, 'it was killed without an error document'],
    [{ exitCode: 0, stdout: 'hello' }, 'Cannot read the result of plugin "dhcp": not JSON'],
    [{ exitCode: 0, stdout: '{"ips":3}' }, 'field "result of dhcp.ips"'],
  ])('that ends with %j is an error', (outcome, message) => {
    expect(() => delegate('dhcp', outcome).plugin.add(request())).toThrow(message);
  });

  it.each([
    ['nowhere', 'failed to find plugin "nowhere" in path ['],
    ['../dhcp', 'invalid plugin name'],
  ])('named %s is not found', (type, message) => {
    expect(() => delegate(type, done).plugin.del(request())).toThrow(message);
  });

  it('is one that may be executed', () => {
    const { plugin, runs } = delegate('plain', done);
    plugin.del(request());
    expect(runs[0]?.[0]).toBe(join(second, 'plain'));
  });
});

describe('a plugin of ours', () => {
  it('runs in this process, and need not do everything', () => {
    const result = { interfaces: [], ips: [], routes: [], dns: emptyDns };
    const own: CniPlugin = { about: '', add: () => result, del: () => undefined };
    const runProgram: RunProgram = () => {
      throw new Error('must not run');
    };
    const plugin = delegateFor('own', { own: new Map([['own', own]]), runProgram });
    expect(plugin.add(request())).toBe(result);
    for (const command of ['del', 'check', 'status', 'gc'] as const) plugin[command](request());
  });
});
