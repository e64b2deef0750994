import { describe, expect, it } from 'vitest';
import { parseNetworkConfig } from '#pkg/cni/config.ts';
import type { CniAddRequest } from '#pkg/cni/plugin.ts';
import { formatResult } from '#pkg/cni/versions.ts';
import { staticPlugin } from './static.ts';

interface Ask {
  readonly ipam?: object | undefined;
  readonly args?: string;
  readonly more?: object;
}

const addresses = [
  { address: '10.10.0.1/24', gateway: '10.10.0.254' },
  { address: '3ffe:ffff:0:1ff::1/64', gateway: '3ffe:ffff::1' },
];
const routes = [{ dst: '0.0.0.0/0' }, { dst: '192.168.0.0/16', gw: '10.10.5.1' }];

function request({ ipam = { addresses }, args = '', more = {} }: Ask): CniAddRequest {
  const fields = { cniVersion: '1.0.0', name: 'net', ipam: { type: 'static', ...ipam }, ...more };
  return {
    containerId: 'abc',
    ifName: 'eth0',
    netns: '/nowhere',
    config: parseNetworkConfig(JSON.stringify(fields)),
    args,
    path: [],
    environment: {},
  };
}

function add(ask: Ask = {}): object {
  const asked = request(ask);
  return formatResult(staticPlugin.add(asked), asked.config.cniVersion);
}

describe('static IPAM', () => {
  it('gives what is configured, host bits and all', () => {
    const dns = { nameservers: ['8.8.8.8'], search: ['example.org'] };
    expect(add({ ipam: { addresses, routes, dns } })).toEqual({
      cniVersion: '1.0.0',
      ips: addresses,
      routes,
      dns,
    });
  });

  it('87. adds the addresses of CNI_ARGS, each gateway to the subnet it lies in', () => {
    const args = 'IP=10.1.1.1/24, fd00::1/64;GATEWAY=fd00::fe,10.1.1.254;IgnoreUnknown=1;K8S=x';
    const ips = [
      { address: '10.1.1.1/24', gateway: '10.1.1.254' },
      { address: 'fd00::1/64', gateway: 'fd00::fe' },
    ];
    expect(add({ ipam: {}, args })).toMatchObject({ ips });
    expect(add({ args })).toMatchObject({ ips: [...addresses, ...ips] });
  });

  it('86. args.cni.ips take the place of both, runtimeConfig.ips that of all', () => {
    const args = 'IP=10.1.1.1/24';
    const cni = { args: { cni: { ips: ['10.2.0.1/16'] } } };
    const runtime = { runtimeConfig: { ips: ['10.3.0.1/16', 'fd03::1/64'] } };
    expect(add({ args, more: cni })).toMatchObject({ ips: [{ address: '10.2.0.1/16' }] });
    expect(add({ args, more: { ...cni, ...runtime } })).toMatchObject({
      ips: [{ address: '10.3.0.1/16' }, { address: 'fd03::1/64' }],
    });
    expect(add({ more: { runtimeConfig: { ips: [] } } })).toMatchObject({ ips: addresses });
  });

  it.each<[string, Ask, string]>([
    [
      'an address without a length',
      { ipam: { addresses: [{ address: '10.0.0.1' }] } },
      "CIDR notation, got: '10.0.0.1'",
    ],
    ['no address', { ipam: { addresses: [{}] } }, '"ipam.addresses[0].address" field is expected'],
    [
      'a gateway of the other family',
      { ipam: { addresses: [{ address: '10.0.0.1/8', gateway: 'fd00::1' }] } },
      '"ipam.addresses[0].gateway": expected an address of the family of 10.0.0.1/8',
    ],
    [
      'CNI_ARGS without a length',
      { args: 'IP=10.0.0.1' },
      "CNI_ARGS is expected to be in CIDR notation, got: '10.0.0.1'",
    ],
    ['a gateway that is none', { args: 'IP=10.0.0.1/8;GATEWAY=x' }, 'invalid gateway address: x'],
    [
      'args without a length',
      { more: { args: { cni: { ips: ['10.0.0.1'] } } } },
      '"args.cni.ips" field is expected to be in CIDR',
    ],
    [
      'runtimeConfig without a length',
      { more: { runtimeConfig: { ips: ['x'] } } },
      '"runtimeConfig.ips" field is expected to be in CIDR',
    ],
    [
      'two of a family where results have room for one',
      {
        ipam: { addresses: [{ address: '10.0.0.1/8' }, { address: '10.0.0.2/8' }] },
        more: { cniVersion: '0.2.0' },
      },
      'CNI version 0.2.0 does not support more than 1 address per family',
    ],
    ['no ipam at all', { more: { ipam: null } }, '"ipam": expected an object'],
  ])('86. refuses %s', (_, ask, message) => {
    expect(() => add(ask)).toThrow(message);
  });

  it('82. gives one of each family to results before 0.3.0', () => {
    expect(add({ more: { cniVersion: '0.2.0' } })).toMatchObject({
      ip4: { ip: '10.10.0.1/24' },
      ip6: { ip: '3ffe:ffff:0:1ff::1/64' },
    });
  });

  it('CHECK compares with the result of ADD', () => {
    const check = (prevResult?: object): void =>
      staticPlugin.check?.(request({ more: prevResult === undefined ? {} : { prevResult } }));
    expect(() => check(add())).not.toThrow();
    expect(() => check({ ...add(), ips: addresses.slice(1) })).toThrow(
      'Failed to find address 10.10.0.1/24',
    );
    expect(() => check()).toThrow('prevResult is missing');
  });

  it('DEL, GC and STATUS have nothing to do, whatever the configuration', () => {
    const broken = request({ ipam: { addresses: [{}] } });
    expect(staticPlugin.del(broken)).toBeUndefined();
    expect(staticPlugin.gc?.(broken)).toBeUndefined();
    expect(staticPlugin.status?.(broken)).toBeUndefined();
  });
});
