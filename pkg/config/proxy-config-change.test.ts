import { describe, expect, it } from 'vitest';
import { completeProxyConfig } from './proxy-config-defaults.ts';
import { configChange } from './proxy-config-change.ts';
import type { ProxyConfigFile } from './proxy-config-file.ts';

const change = (old: ProxyConfigFile, now: ProxyConfigFile): ReturnType<typeof configChange> =>
  configChange(completeProxyConfig(old), completeProxyConfig(now));
const section = <T>(values: object): T => values as T;

describe('configChange()', () => {
  it('nothing', () => {
    expect(change({}, { mode: 'iptables', nodePortAddresses: [] })).toEqual({
      changed: [],
      needRestart: [],
    });
  });

  it.each<[ProxyConfigFile, readonly string[]]>([
    [{ iptables: section({ masqueradeAll: true }) }, ['iptables.masqueradeAll']],
    [{ iptables: section({ masqueradeBit: 3 }) }, ['iptables.masqueradeBit']],
    [{ iptables: section({ syncPeriod: 60_000 }) }, ['iptables.syncPeriod']],
    [{ iptables: section({ localhostNodePorts: false }) }, ['iptables.localhostNodePorts']],
    [{ clusterCIDR: '10.0.0.0/8' }, ['clusterCIDR']],
    [{ detectLocalMode: 'NodeCIDR' }, ['detectLocalMode']],
    [{ nodePortAddresses: ['primary'] }, ['nodePortAddresses']],
    [{ conntrack: section({ min: 1 }) }, ['conntrack.min']],
    [{ oomScoreAdj: 0 }, ['oomScoreAdj']],
    [{ logging: section({ verbosity: 4 }) }, ['logging.verbosity']],
    [{ metricsBindAddress: '0.0.0.0:1' }, ['metricsBindAddress']],
    [{ bindAddress: '192.0.2.1' }, ['bindAddress']],
    [{ enableProfiling: true }, ['enableProfiling']],
    // Of modes that do not run.
    [{ ipvs: section({ scheduler: 'lc' }) }, ['ipvs.scheduler']],
    [{ nftables: section({ masqueradeBit: 3 }) }, ['nftables.masqueradeBit']],
  ])('%j can be taken over', (now, changed) => {
    expect(change({}, now)).toEqual({ changed, needRestart: [] });
  });

  it.each<[ProxyConfigFile, ProxyConfigFile, readonly string[]]>([
    [{}, { mode: 'nftables' }, ['mode']],
    [{}, { hostnameOverride: 'other' }, ['hostnameOverride']],
    [{}, { clientConnection: section({ kubeconfig: '/k' }) }, ['clientConnection.kubeconfig']],
    [{}, { featureGates: { A: true } }, ['featureGates.A']],
    [{}, { bindAddressHardFail: true }, ['bindAddressHardFail']],
    [{}, { iptables: section({ layout: 'tree' }) }, ['iptables.layout']],
    [{ mode: 'ipvs' }, { mode: 'ipvs', ipvs: section({ scheduler: 'lc' }) }, ['ipvs.scheduler']],
  ])('%j to %j needs a new start', (old, now, needRestart) => {
    expect(change(old, now)).toEqual({ changed: needRestart, needRestart });
  });
});
