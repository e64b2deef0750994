import { describe, expect, it } from 'vitest';
import { parseNetworkConfig } from '#pkg/cni/config.ts';
import { openNodeSys } from '#pkg/sys/node-ffi.ts';
import { repeatedKey } from './repeated-key.ts';
import { notAllowed } from './tuning-allowlist.ts';
import { parseTuningConfig } from './tuning-config.ts';
import { tuningPlugin } from './tuning.ts';

function requestOf(config: object | string, { ifName = 'eth0', args = '' } = {}) {
  const text =
    typeof config === 'string'
      ? config
      : JSON.stringify({ cniVersion: '1.0.0', name: 'net', type: 'tuning', ...config });
  return {
    config: parseNetworkConfig(text),
    containerId: 'pod',
    ifName,
    netns: '/run/netns/x',
    args,
    path: [],
    environment: {},
  };
}

function parse(config: object | string, of = {}) {
  return parseTuningConfig(requestOf(config, of));
}

describe('sysctl names', () => {
  it.each([
    ['net.ipv4.conf.IFNAME.log_martians', 'eth0', 'net/ipv4/conf/eth0/log_martians'],
    ['net.ipv4.conf.IFNAME.log_martians', 'eth0.100', 'net/ipv4/conf/eth0.100/log_martians'],
    ['net/ipv4/conf/IFNAME/arp_notify', 'eth0', 'net/ipv4/conf/eth0/arp_notify'],
    ['net.core.somaxconn', 'eth0', 'net/core/somaxconn'],
  ])('88. %s of %s is %s', (key, ifName, path) => {
    expect(parse({ sysctl: { [key]: '1' } }, { ifName }).sysctls).toEqual([
      { key, path, value: '1' },
    ]);
  });

  it.each(['kernel.panic', 'net', 'net/../kernel/panic', '/net/ipv4/x', 'net..ipv4', 'network.x'])(
    '88. %s is refused',
    (key) => {
      expect(() => parse({ sysctl: { [key]: '1' } })).toThrow(`invalid net sysctl key: "${key}"`);
    },
  );
});

describe('a sysctl that is set twice', () => {
  it.each([
    [
      'by one object',
      `{"cniVersion":"1.0.0","name":"net","sysctl":{"net.core.a":"1","net.core.a":"2"}}`,
    ],
    ['by two spellings', { sysctl: { 'net.core.a': '1', 'net/core/a': '2' } }],
    [
      'by configuration and args',
      { sysctl: { 'net.core.a': '1' }, args: { cni: { sysctl: { 'net.core.a': '2' } } } },
    ],
  ])('90. %s is an error', (_, config) => {
    expect(() => parse(config)).toThrow(/duplicated entry "net[./]core[./]a"/);
  });

  it('args may set others, and need no map in the configuration', () => {
    const args = { cni: { sysctl: { 'net.core.b': '2' } } };
    expect(parse({ args }).sysctls).toHaveLength(1);
    expect(parse({ sysctl: { 'net.core.a': '1' }, args }).sysctls).toHaveLength(2);
  });
});

describe('repeatedKey()', () => {
  it.each([
    ['{"a":{"x":1,"x":2}}', 'a', 'x'],
    ['{"a":{"x":1},"b":{"x":1,"y":{"x":1}}}', 'b', undefined],
    ['{"a":[{"x":1},{"x":1}]}', 'a', undefined],
    ['{"a":{"b":{"\\u0078":1,"x":2}}}', 'a.b', 'x'],
    ['{"a":{"x":"x","y":"{\\"x\\":1"}}', 'a', undefined],
    ['{"a":"a","b":{"x":true,"y":null,"x":-1.5e3}}', 'b', 'x'],
    ['{}', 'a', undefined],
  ])('%s at %s: %s', (text, path, key) => {
    expect(repeatedKey(text, path)).toBe(key);
  });
});

describe('which source counts', () => {
  const mac = (n: number): string => `02:00:00:00:00:0${n}`;
  it.each([
    ['the configuration', { mac: mac(1) }, '', mac(1)],
    ['CNI_ARGS before it', { mac: mac(1) }, `MAC=${mac(2)}`, mac(2)],
    [
      'runtimeConfig before CNI_ARGS',
      { mac: mac(1), runtimeConfig: { mac: mac(3) } },
      `MAC=${mac(2)}`,
      mac(3),
    ],
    [
      'args.cni before all',
      { mac: mac(1), runtimeConfig: { mac: mac(3) }, args: { cni: { mac: mac(4) } } },
      `MAC=${mac(2)}`,
      mac(4),
    ],
  ])('89. for the MAC address: %s', (_, config, args, expected) => {
    expect(parse(config, { args }).mac).toBe(expected);
  });

  it('89. for the others: args.cni before the configuration', () => {
    const own = { promisc: true, mtu: 1400, txQLen: 10, allmulti: true };
    expect(parse(own)).toMatchObject({
      promiscuous: true,
      mtuBytes: 1400,
      txQueueLength: 10,
      allMulticast: true,
    });
    const args = { cni: { promisc: false, mtu: 1300, txQLen: 0, allmulti: false } };
    expect(parse({ ...own, args })).toMatchObject({
      promiscuous: undefined,
      mtuBytes: 1300,
      txQueueLength: 0,
      allMulticast: false,
    });
  });

  it.each([
    [{ mac: '02:00' }, /"mac": expected a MAC address/],
    [{ mtu: -1 }, /"mtu": expected a whole number/],
    [{ sysctl: { 'net.core.a': 1 } }, /"sysctl.net.core.a": expected a string/],
    [{ promisc: 'yes' }, /"promisc": expected true or false/],
  ])('89. %j is an error', (config, message) => {
    expect(() => parse(config)).toThrow(message);
  });
});

it('STATUS has no interface, and reads settings of one all the same', () => {
  const unused = (): never => expect.unreachable();
  const system = { sys: openNodeSys(), runProgram: unused, delegates: new Map(), die: unused };
  const plugin = tuningPlugin(system);
  const status = (key: string): void =>
    plugin.status?.(requestOf({ cniVersion: '1.1.0', sysctl: { [key]: '1' } }, { ifName: '' }));
  expect(() => status('net.ipv4.conf.IFNAME.log_martians')).not.toThrow();
  expect(() => status('kernel.panic')).toThrow('invalid net sysctl key');
});

describe('the allowlist', () => {
  const { sysctls } = parse({
    sysctl: { 'net.ipv4.conf.IFNAME.log_martians': '1', 'net.core.somaxconn': '9' },
  });
  it.each([
    ['^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$\n\nnet.core.somaxconn\n', undefined],
    ['net\\.ipv4\\..*', 'net.core.somaxconn'],
    ['', 'net.ipv4.conf.IFNAME.log_martians'],
    // A pattern is for the whole key.
    ['ipv4\nsomaxconn', 'net.ipv4.conf.IFNAME.log_martians'],
  ])('90. %j refuses %s', (text, refused) => {
    expect(notAllowed(text, sysctls)).toBe(refused);
  });
  it('90. a line that is no regular expression is an error, not a licence', () => {
    expect(() => notAllowed('(', sysctls)).toThrow('"(" is no regular expression');
  });
});
