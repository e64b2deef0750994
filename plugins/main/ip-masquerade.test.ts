import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { parseNetworkConfig } from '#pkg/cni/config.ts';
import type { RunProgram } from '#pkg/cni/delegate.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import {
  addMasquerade,
  collectMasquerade,
  deleteMasquerade,
  parseMasquerade,
  type MasqueradeBackend,
} from './ip-masquerade.ts';

/**
 * A host where only some of the programs are, or work; it keeps what nft and iptables were fed. The
 * latter answers those only who have locked it, since between reading and writing nobody else may write.
 */
function hostWith(programs: Readonly<Record<string, 'works' | 'fails'>>): {
  readonly system: CniSystem;
  readonly fed: string[];
} {
  const fed: string[] = [];
  let lock: number | undefined;
  const sys = { flock: (fd: number) => void (lock = fd) } as unknown as Sys;
  const isLocked = (): boolean => lock !== undefined && existsSync(`/proc/self/fd/${lock}`);
  const runProgram: RunProgram = (file, { input }) => {
    const state = programs[file.replace(/-(save|restore)$/, '')];
    if (state === undefined) throw new AgentError('ENOENT', `spawn ${file}`);
    if (file !== 'nft' && !isLocked()) throw new Error(`${file} was called without the lock`);
    if (state === 'fails') return { exitCode: 1, stdout: '', stderr: 'no such table' };
    if (input !== '') fed.push(`${file}: ${input}`);
    const empty = file === 'nft' ? '{"nftables":[]}' : '*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n';
    return { exitCode: 0, stdout: empty };
  };
  const die = (error: AgentError): never => {
    throw error;
  };
  return { fed, system: { sys, runProgram, delegates: new Map(), die } };
}

const request: CniRequest = {
  containerId: 'abc',
  ifName: 'eth0',
  netns: undefined,
  config: parseNetworkConfig('{"cniVersion":"1.1.0","name":"net"}'),
  args: '',
  path: [],
  environment: {},
};

function add(system: CniSystem, backend: MasqueradeBackend | undefined): void {
  using undo = new DisposableStack();
  const prefixes = [parsePrefix('10.1.2.3/24'), parsePrefix('fd00::3/64')];
  addMasquerade(system, { request, config: { backend }, prefixes, undo });
  undo.move();
}

describe('without a backend named', () => {
  it('iptables is taken where it works, with the names of the reference', () => {
    const { system, fed } = hostWith({ iptables: 'works', ip6tables: 'works', nft: 'works' });
    add(system, undefined);
    expect(fed).toHaveLength(2);
    expect(fed[0]).toContain('-N CNI-3ce8a0924fdef86d56ad1df1\n');
    expect(fed[0]).toContain('! -d 224.0.0.0/4');
    expect(fed[0]).toContain('-A POSTROUTING -s 10.1.2.3/32');
    expect(fed[1]).toContain('! -d ff00::/8');
    expect(fed.join()).not.toContain('nft:');
  });

  it.each<[string, Readonly<Record<string, 'works' | 'fails'>>]>([
    ['is not there', { nft: 'works' }],
    ['does not work', { nft: 'works', iptables: 'fails', ip6tables: 'fails' }],
    ['works for IPv4 only', { nft: 'works', iptables: 'works', ip6tables: 'fails' }],
  ])('nftables is taken where iptables %s', (_, programs) => {
    const { system, fed } = hostWith(programs);
    add(system, undefined);
    expect(fed.at(-1)).toContain(
      'masq_checks ip saddr 10.1.2.3 ip daddr != 10.1.2.0/24 masquerade',
    );
    expect(fed.at(-1)).toContain('masq_checks ip6 saddr fd00::3 ip6 daddr != fd00::/64 masquerade');
  });

  it('ADD and DEL say so where neither is', () => {
    const { system } = hostWith({});
    expect(() => add(system, undefined)).toThrow();
    expect(() => deleteMasquerade(system, request)).toThrow('no such program in PATH');
  });
});

it('a backend that is named is the only one', () => {
  const { system, fed } = hostWith({ nft: 'works' });
  expect(() => add(system, 'iptables')).toThrow('Cannot run iptables-save');
  expect(fed).toEqual([]);
});

it('DEL is content with one backend, whichever that is', () => {
  deleteMasquerade(hostWith({ nft: 'works' }).system, request);
  deleteMasquerade(hostWith({ iptables: 'works' }).system, request);
  deleteMasquerade(
    hostWith({ iptables: 'works', ip6tables: 'works', nft: 'fails' }).system,
    request,
  );
});

it('GC is content with one backend, too', () => {
  const conf = { cniVersion: '1.1.0', name: 'net', 'cni.dev/valid-attachments': [] };
  const config = parseNetworkConfig(JSON.stringify(conf));
  for (const backend of ['iptables', 'nft']) {
    collectMasquerade(hostWith({ [backend]: 'works' }).system, { ...request, config });
  }
  expect(() => collectMasquerade(hostWith({}).system, { ...request, config })).toThrow('in PATH');
});

it.each([
  [{}, undefined],
  [{ ipMasqBackend: 'nftables' }, undefined],
  [{ ipMasq: true }, { backend: undefined }],
  [{ ipMasq: true, ipMasqBackend: 'iptables' }, { backend: 'iptables' }],
])('the configuration %j', (fields, expected) => {
  const text = JSON.stringify({ cniVersion: '1.1.0', name: 'net', ...fields });
  expect(parseMasquerade(parseNetworkConfig(text))).toEqual(expected);
});
