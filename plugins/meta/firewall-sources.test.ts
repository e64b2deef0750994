import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { AttachmentKey } from '#pkg/cni/attachment-store.ts';
import { parseNetworkConfig } from '#pkg/cni/config.ts';
import { openNodeSys } from '#pkg/sys/node-ffi.ts';
import {
  claimSources,
  collectSources,
  openSourceStore,
  releaseSources,
  type SourceTools,
  type ZoneSources,
} from './firewall-sources.ts';

let directory: string;
let firewalld: { running: boolean; readonly zoneOf: Map<string, string> };
let tools: SourceTools;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'podwire-sources-'));
  firewalld = { running: true, zoneOf: new Map() };
  const dataDir = join(directory, 'firewall');
  const config = parseNetworkConfig(
    JSON.stringify({ cniVersion: '1.1.0', name: 'net', type: 'firewall', dataDir }),
  );
  tools = { store: openSourceStore(openNodeSys(), config), run: busctl };
});
afterEach(() => rmSync(directory, { recursive: true }));

/** firewalld as far as the plugin knows it: a source is in one zone. */
function busctl(_: string, args: readonly string[]): string {
  const { running, zoneOf } = firewalld;
  if (args.includes('NameHasOwner')) return `b ${running}\n`;
  const [method, , zone = '', source = ''] = args.slice(-4);
  const refuse = (stderr: string): never => {
    throw new AgentError('CommandFailed', `Cannot run busctl: ${stderr}`, { details: { stderr } });
  };
  const at = zoneOf.get(source);
  if (zone === 'nowhere') refuse('INVALID_ZONE: nowhere');
  if (at !== undefined && at !== zone) refuse('ZONE_CONFLICT: it is in another');
  if (method === 'addSource') {
    if (at === zone) refuse('ZONE_ALREADY_SET: it is');
    zoneOf.set(source, zone);
  } else if (!zoneOf.delete(source)) refuse('UNKNOWN_SOURCE: it is in none');
  return `s ${zone}\n`;
}

const key = (containerId: string): AttachmentKey => ({
  network: 'net',
  containerId,
  ifName: 'eth0',
});
const trusted = (...of: string[]): ZoneSources => ({ zone: 'trusted', sources: of });
const sources = (): string[] => [...firewalld.zoneOf.keys()];
const [one, two] = ['10.1.2.3/32', 'fd00:1::3/128'];

describe('sources of firewalld', () => {
  it('go without a result, in whatever zone they were added', () => {
    claimSources(tools, key('a'), trusted(one));
    claimSources(tools, key('a'), { zone: 'internal', sources: [two] });
    expect(sources()).toEqual([one, two]);
    const file = join(directory, 'firewall/net/a:eth0');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    for (let time = 0; time < 2; time++) {
      releaseSources(tools, { ...key('a'), network: 'renamed' });
      expect([sources(), readdirSync(join(directory, 'firewall/net'))]).toEqual([[], []]);
    }
  });

  it('go by a result where nothing was remembered', () => {
    firewalld.zoneOf.set(one, 'trusted');
    releaseSources(tools, key('a'), trusted(one));
    expect(sources()).toEqual([]);
  });

  it('are asked for once, however often they were added', () => {
    for (let time = 0; time < 2; time++) claimSources(tools, key('a'), trusted(one, two));
    expect(tools.store.find(key('a'))?.document?.['zones']).toEqual([trusted(one, two)]);
    const calls: string[] = [];
    const run = (file: string, args: readonly string[]): string => {
      calls.push(args.slice(-4).join(' '));
      return busctl(file, args);
    };
    releaseSources({ ...tools, run }, key('a'), trusted(one));
    const removals = calls.filter((call) => call.startsWith('removeSource'));
    expect(removals).toEqual([one, two].map((source) => `removeSource ss trusted ${source}`));
  });

  it('are remembered before they are added', () => {
    const killed = new Error('killed');
    const run = (file: string, args: readonly string[]): string => {
      busctl(file, args);
      throw killed;
    };
    const { store } = tools;
    // What a process does that is killed: nothing more.
    const dying = { ...store, delete: () => undefined };
    expect(() => claimSources({ store: dying, run }, key('a'), trusted(one))).toThrow(killed);
    expect(sources()).toEqual([one]);
    releaseSources(tools, key('a'));
    expect(sources()).toEqual([]);
  });

  it('are as they were where one cannot be added', () => {
    firewalld.zoneOf.set(two, 'drop');
    expect(() => claimSources(tools, key('a'), trusted(one, two))).toThrow('ZONE_CONFLICT');
    expect([sources(), tools.store.list()]).toEqual([[two], []]);
    claimSources(tools, key('a'), trusted(one));
    const before = tools.store.list();
    expect(() => claimSources(tools, key('a'), trusted(two))).toThrow('ZONE_CONFLICT');
    expect(tools.store.list()).toEqual(before);
    releaseSources(tools, key('a'), trusted(one, two));
    // Somebody put that one into a zone of their own.
    expect(sources()).toEqual([two]);
  });

  it('stay as long as another container has the address', () => {
    claimSources(tools, key('a'), trusted(one));
    claimSources(tools, { ...key('b'), network: 'other' }, trusted(one));
    releaseSources(tools, key('a'), trusted(one));
    expect(sources()).toEqual([one]);
    releaseSources(tools, { ...key('b'), network: 'other' });
    expect(sources()).toEqual([]);
  });

  it('of no valid attachment are collected, in their network only', () => {
    claimSources(tools, key('a'), trusted(one));
    claimSources(tools, key('b'), trusted(two));
    claimSources(tools, key('c'), trusted('10.1.2.5/32'));
    claimSources(tools, { ...key('d'), network: 'other' }, trusted('10.1.2.6/32'));
    // The address of one that is gone has a new owner.
    claimSources(tools, key('e'), trusted('10.1.2.5/32'));
    collectSources(tools, 'net', [key('b'), key('e'), { ...key('a'), ifName: 'eth1' }]);
    expect(sources()).toEqual([two, '10.1.2.5/32', '10.1.2.6/32']);
    const left = tools.store.list().map(({ containerId }) => containerId);
    expect(left.toSorted()).toEqual(['b', 'd', 'e']);
  });

  it('are forgotten when firewalld has gone: it kept none', () => {
    claimSources(tools, key('a'), trusted(one));
    firewalld.running = false;
    releaseSources(tools, key('a'));
    expect(tools.store.list()).toEqual([]);
    expect(sources()).toEqual([one]);
  });
});
