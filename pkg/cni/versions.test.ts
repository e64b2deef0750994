import { describe, expect, it } from 'vitest';
import { formatResult, parseResult, type CniVersion } from './versions.ts';

/** All a 1.1.0 result can hold. */
const full = {
  cniVersion: '1.1.0',
  interfaces: [
    { name: 'cni0', mac: '0a:58:0a:01:02:01', mtu: 1500 },
    {
      name: 'eth0',
      mac: '0a:58:0a:01:02:03',
      mtu: 1500,
      sandbox: '/n',
      socketPath: '/s',
      pciID: 'p',
    },
  ],
  ips: [
    { interface: 0, address: '10.1.2.3/24', gateway: '10.1.2.1' },
    { address: 'fd00::3/64', gateway: 'fd00::1' },
    { interface: 1, address: '10.9.9.9/24' },
  ],
  routes: [
    { dst: '0.0.0.0/0', gw: '10.1.2.1', mtu: 1400, advmss: 1360, priority: 5, table: 0, scope: 0 },
    { dst: '::/0' },
  ],
  dns: { nameservers: ['10.0.0.1'], domain: 'd', search: ['a', 'b'], options: ['c'] },
};

function convert(json: unknown, to: CniVersion, from: CniVersion = '1.1.0'): unknown {
  return JSON.parse(JSON.stringify(formatResult(parseResult(json, from), to)));
}

describe('a 1.1.0 result', () => {
  it('41. 42. 43. comes back from 1.1.0 as it was: interface 0, table 0 and host bits too', () => {
    expect(convert(full, '1.1.0')).toEqual(full);
  });

  it('39. loses what 1.0.0 has no place for', () => {
    expect(convert(full, '1.0.0')).toEqual({
      ...full,
      cniVersion: '1.0.0',
      interfaces: [
        { name: 'cni0', mac: '0a:58:0a:01:02:01' },
        { name: 'eth0', mac: '0a:58:0a:01:02:03', sandbox: '/n' },
      ],
    });
  });

  it.each(['0.3.0', '0.3.1', '0.4.0'] as const)('names the family of addresses in %s', (to) => {
    expect(convert(full, to)).toMatchObject({
      cniVersion: to,
      ips: [
        { version: '4', interface: 0, address: '10.1.2.3/24' },
        { version: '6', address: 'fd00::3/64' },
        { version: '4', interface: 1 },
      ],
    });
  });

  it.each(['0.1.0', '0.2.0'] as const)('39. keeps one address a family in %s', (to) => {
    expect(convert(full, to)).toEqual({
      cniVersion: to,
      ip4: {
        ip: '10.1.2.3/24',
        gateway: '10.1.2.1',
        routes: [{ ...full.routes[0] }],
      },
      ip6: { ip: 'fd00::3/64', gateway: 'fd00::1', routes: [{ dst: '::/0' }] },
      dns: full.dns,
    });
  });
});

describe('a result without addresses', () => {
  const bare = { cniVersion: '1.1.0', interfaces: [{ name: 'lo' }] };
  it('40. cannot be one of 0.2.0', () => {
    expect(() => convert(bare, '0.2.0')).toThrow('no valid IP addresses');
  });
  it.each([
    ['0.4.0', { dns: {} }],
    ['1.0.0', {}],
  ] as const)('40. has just what %s wants', (to, more) => {
    expect(convert(bare, to)).toEqual({ cniVersion: to, interfaces: [{ name: 'lo' }], ...more });
  });
});

describe('an old result', () => {
  const old = {
    cniVersion: '0.2.0',
    ip4: { ip: '10.1.2.3/24', gateway: '10.1.2.1', routes: [{ dst: '0.0.0.0/0' }] },
    ip6: { ip: 'fd00::3/64', routes: [{ dst: '::/0', gw: 'fd00::9' }] },
    dns: {},
  };
  it('becomes a new one, its addresses of no interface', () => {
    expect(convert(old, '1.1.0')).toEqual({
      cniVersion: '1.1.0',
      ips: [{ address: '10.1.2.3/24', gateway: '10.1.2.1' }, { address: 'fd00::3/64' }],
      routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0', gw: 'fd00::9' }],
    });
  });
  it('comes back as it was', () => {
    expect(convert(convert(old, '1.1.0'), '0.2.0')).toEqual(old);
  });
});

describe('parseResult()', () => {
  it.each([{}, { cniVersion: '' }])(
    'takes the version of the configuration when there is none: %j',
    (version) => {
      const old = { ...version, ip4: { ip: '10.1.2.3/24' } };
      expect(parseResult(old, '0.2.0').ips).toHaveLength(1);
      expect(parseResult(old, '1.0.0').ips).toHaveLength(0);
    },
  );

  it.each([
    ['an address without length', { ips: [{ address: '10.1.2.3' }] }, 'prevResult.ips[0].address'],
    ['no address', { ips: [{}] }, 'prevResult.ips[0].address'],
    ['a bad index', { ips: [{ address: '10.1.2.3/24', interface: '0' }] }, 'ips[0].interface'],
    ['a bad gateway', { routes: [{ dst: '::/0', gw: 'x' }] }, 'prevResult.routes[0].gw'],
    ['a list that is none', { interfaces: {} }, 'prevResult.interfaces'],
    ['an unknown version', { cniVersion: '2.0.0' }, 'unknown version "2.0.0"'],
  ])('43. refuses %s and says where', (_, json, text) => {
    expect(() => parseResult(json, '1.1.0')).toThrow(text);
  });

  it('reads null as absent, as Go writes empty lists', () => {
    expect(parseResult({ ips: null, dns: { search: null } }, '1.1.0').ips).toEqual([]);
  });
});
