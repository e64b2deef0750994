import { describe, expect, it } from 'vitest';
import { parseNetworkConfig } from '#pkg/cni/config.ts';
import { parseMac } from './pod-mac.ts';

function macOf(config: object, args = '', own?: string): string | undefined {
  const text = JSON.stringify({ cniVersion: '1.0.0', name: 'net', ...config });
  const call = { containerId: 'pod', ifName: 'eth0', netns: '/run/netns/x', path: [] };
  return parseMac({ ...call, args, environment: {}, config: parseNetworkConfig(text) }, own);
}

const [fromRuntime, fromArgs] = [{ runtimeConfig: { mac: 'c2:00:00:00:00:01' } }, 'MAC=C2:0:0'];

describe('parseMac()', () => {
  it('57. one place before the other, in small letters', () => {
    const args = { args: { cni: { mac: 'c2:00:00:00:00:02' } } };
    const all = { ...fromRuntime, ...args };
    expect(macOf(all, 'MAC=c2:00:00:00:00:03', 'c2:00:00:00:00:04')).toBe('c2:00:00:00:00:01');
    expect(macOf(args, 'MAC=c2:00:00:00:00:03')).toBe('c2:00:00:00:00:02');
    expect(macOf({}, 'MAC=C2:00:00:00:00:AB', 'c2:00:00:00:00:04')).toBe('c2:00:00:00:00:ab');
    expect(macOf({}, '', 'c2:00:00:00:00:04')).toBe('c2:00:00:00:00:04');
    expect(macOf({})).toBeUndefined();
  });

  it.each<[object, string, string | undefined, string]>([
    [{ runtimeConfig: { mac: 'x' } }, '', undefined, '"runtimeConfig.mac": expected a MAC address'],
    [{ args: { cni: { mac: '01:00:5e:00:00:01' } } }, '', undefined, '"args.cni.mac": expected a'],
    [
      {},
      fromArgs,
      undefined,
      '"CNI_ARGS MAC": expected a MAC address as c2:11:22:33:44:55, got "C2',
    ],
    [{}, '', 'x', '"mac": expected a MAC address'],
  ])(
    '57. what is wrong is named as it is where it was given: %j, %j, %j',
    (config, args, own, message) => {
      expect(() => macOf(config, args, own)).toThrow(`Cannot read configuration field ${message}`);
    },
  );
});
