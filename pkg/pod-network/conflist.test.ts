import { describe, expect, test } from 'vitest';
import {
  conflistText,
  defaultCooldownSeconds,
  defaultIpamDataDir,
  defaultNodeFile,
  defaultStateDir,
  type ConflistOptions,
} from './conflist.ts';

const defaults: ConflistOptions = {
  nodeFile: defaultNodeFile,
  ipamDataDir: defaultIpamDataDir,
  stateDir: defaultStateDir,
  mode: 'bridge',
  antiSpoofing: true,
  hostPorts: true,
  bandwidth: true,
  addressCooldownSeconds: defaultCooldownSeconds,
};

function pluginOf(options: Partial<ConflistOptions>): unknown {
  const list = JSON.parse(conflistText({ ...defaults, ...options })) as { plugins: [unknown] };
  return list.plugins[0];
}

const all = { portMappings: true, bandwidth: true, ips: true, mac: true };

describe('conflistText()', () => {
  test('says the defaults in a few words, and that newer runtimes may speak 1.1.0', () => {
    expect(JSON.parse(conflistText(defaults))).toEqual({
      cniVersion: '1.0.0',
      cniVersions: ['1.0.0', '1.1.0'],
      name: 'podwire',
      plugins: [{ type: 'podwire', bridge: 'cni0', capabilities: all }],
    });
  });

  test.each<[string, Partial<ConflistOptions>, object]>([
    [
      'other directories',
      { nodeFile: '/run/a/node.json', ipamDataDir: '/var/a', stateDir: '/var/b' },
      {
        bridge: 'cni0',
        capabilities: all,
        nodeFile: '/run/a/node.json',
        ipam: { dataDir: '/var/a' },
        stateDir: '/var/b',
      },
    ],
    ['no bridge for routed pods', { mode: 'routed' }, { mode: 'routed', capabilities: all }],
    [
      'that pods may forge',
      { antiSpoofing: false },
      { bridge: 'cni0', capabilities: all, antiSpoofing: false },
    ],
    [
      'no host ports',
      { hostPorts: false },
      { bridge: 'cni0', capabilities: { bandwidth: true, ips: true, mac: true } },
    ],
    [
      'no limits',
      { bandwidth: false },
      { bridge: 'cni0', capabilities: { portMappings: true, ips: true, mac: true } },
    ],
    [
      'how long addresses rest',
      { addressCooldownSeconds: 0 },
      { bridge: 'cni0', capabilities: all, ipam: { cooldownSeconds: 0 } },
    ],
  ])('says %s', (_, options, plugin) => {
    expect(pluginOf(options)).toEqual({ type: 'podwire', ...plugin });
  });
});
