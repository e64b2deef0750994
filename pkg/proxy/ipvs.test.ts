import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Family } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { renderIpSets } from '#pkg/ipset/render.ts';
import { renderSave } from '#pkg/iptables/render.ts';
import { renderVirtualServers } from '#pkg/ipvs/render.ts';
import { IpvsBook } from './ipvs-book.ts';
import { IpvsClaims } from './ipvs-claims.ts';
import type { IpvsOptions } from './ipvs-options.ts';
import { ipvsPart } from './ipvs-port.ts';
import { ipvsRuleset } from './ipvs-rules.ts';
import { ipvsSets, setName } from './ipvs-sets.ts';
import { fortyServices } from './testdata/forty-services/forty-services.ts';
import { local, p80, portsOf, service, slice, snapshot, type Cluster } from './testdata/records.ts';

const own = { ip: ['192.168.0.2'], ip6: ['fd00:192::2'] } as const;

const options = (family: Family, fields: Partial<IpvsOptions> = {}): IpvsOptions => ({
  family,
  scheduler: 'rr',
  schedulerFlags: '',
  masqueradeBit: 14,
  masqueradeAll: false,
  localDetector: {
    kind: 'cluster-cidr',
    prefixes: [parsePrefix('10.0.0.0/8'), parsePrefix('fd00:10::/64')],
  },
  nodePortAddresses: own[family],
  hostAddresses: own[family],
  foreignAddresses: [],
  nodeAddress: own[family][0],
  randomFully: true,
  ...fields,
});

function bookOf(cluster: Cluster, family: Family, fields: Partial<IpvsOptions> = {}): IpvsBook {
  const ports = portsOf(cluster, family);
  const book = new IpvsBook(options(family, fields));
  book.update(ports, ports.keys());
  return book;
}

/** Set members, but for those that every Service has, as "KUBE-X member". */
function members(book: IpvsBook): string[] {
  return book.sets().flatMap(({ members: all, name }) => [...all].map((m) => `${name} ${m}`));
}

const golden = (name: string): string =>
  readFileSync(`${import.meta.dirname}/testdata/ipvs/${name}.txt`, 'utf8');

describe.each(['ip', 'ip6'] as const)('forty Services, family %s', (family) => {
  it('virtual servers, as ipvsadm --save prints them', () => {
    const book = bookOf(fortyServices, family);
    expect(renderVirtualServers(book.servers().values())).toBe(golden(`servers-${family}`));
  });

  it('sets, as ipset save prints them', () => {
    expect(renderIpSets(bookOf(fortyServices, family).sets())).toBe(golden(`sets-${family}`));
  });

  it('rules, the same whatever the Services are', () => {
    expect(renderSave(ipvsRuleset(options(family)))).toBe(golden(`rules-${family}`));
  });

  it('rules match sets that are there, and all of them', () => {
    const text = renderSave(ipvsRuleset(options(family)));
    const matched = new Set(
      [...text.matchAll(/--match-set (\S+)/g)].map((match) => match[1] ?? ''),
    );
    expect(matched).toEqual(new Set(ipvsSets(family).map(({ name }) => name)));
  });
});

it('S139. the first rule lets loopback sources pass', () => {
  const text = renderSave(ipvsRuleset(options('ip')));
  expect(/-A KUBE-SERVICES .*/.exec(text)?.[0]).toBe('-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN');
});

it('set names are cut to what the kernel takes, and stay apart', () => {
  const names = (['ip', 'ip6'] as const).flatMap((f) => ipvsSets(f).map(({ name }) => name));
  expect(Math.max(...names.map((name) => name.length))).toBe(31);
  expect(new Set(names).size).toBe(names.length);
  expect(setName('LOAD-BALANCER-SOURCE-CIDR', 'ip6')).toBe('KUBE-6-LOAD-BALANCER-SOURCE-CID');
});

const here = local('10.0.1.1');
const external = {
  type: 'LoadBalancer' as const,
  clusterIPs: ['10.96.0.1'],
  ports: p80(30080),
  loadBalancerIngress: [{ ip: '203.0.113.1', ipMode: 'VIP' as const }],
};

describe('what becomes of traffic that no endpoint may take', () => {
  it('nobody anywhere: refused at every address, and no virtual server', () => {
    const book = bookOf({ services: [service('a/a', external)] }, 'ip');
    expect([...book.servers()]).toEqual([]);
    expect(members(book).filter((m) => m.startsWith('KUBE-NO-'))).toEqual([
      'KUBE-NO-ENDPOINT 10.96.0.1,tcp:80',
      'KUBE-NO-ENDPOINT 203.0.113.1,tcp:80',
      'KUBE-NO-ENDPOINT 192.168.0.2,tcp:30080',
    ]);
  });

  it('S136. nobody here and external policy Local: dropped from outside, served to pods', () => {
    const services = [service('a/a', { ...external, externalTrafficPolicy: 'Local' })];
    const book = bookOf({ services, slices: [slice('a/a', ['10.0.1.1'])] }, 'ip');
    expect(book.server('-t 203.0.113.1:80')?.realServers).toHaveLength(1);
    expect(members(book).filter((m) => m.startsWith('KUBE-NO-'))).toEqual([
      'KUBE-NO-LOCAL-EXTERNAL 203.0.113.1,tcp:80',
      'KUBE-NO-LOCAL-EXTERNAL 192.168.0.2,tcp:30080',
    ]);
  });

  it('nobody here and internal policy Local: dropped', () => {
    const services = [
      service('a/a', { clusterIPs: ['10.96.0.1'], internalTrafficPolicy: 'Local' }),
    ];
    const book = bookOf({ services, slices: [slice('a/a', ['10.0.1.1'])] }, 'ip');
    expect([...book.servers()]).toEqual([]);
    expect(members(book)).toContain('KUBE-NO-LOCAL-IP 10.96.0.1,tcp:80');
  });
});

it('every endpoint has weight 1', () => {
  const book = bookOf(
    { services: [service('a/a', external)], slices: [slice('a/a', [here])] },
    'ip',
  );
  const weights = [...book.servers().values()].flatMap((s) => s.realServers.map((r) => r.weight));
  expect(weights).toEqual([1, 1, 1]);
});

it('S132. a node port has a virtual server on each address', () => {
  const addresses = ['192.168.0.2', '192.168.1.2'];
  const services = [service('a/a', external)];
  const book = bookOf({ services, slices: [slice('a/a', [here])] }, 'ip', {
    nodePortAddresses: addresses,
  });
  const keys = [...book.servers().keys()].filter((key) => key.endsWith(':30080'));
  expect(keys).toEqual(addresses.map((address) => `-t ${address}:30080`));
});

it('S135. source ranges are set members, a single address without its length', () => {
  const services = [
    service('a/a', { ...external, loadBalancerSourceRanges: ['192.0.2.0/24', '192.0.2.7/32'] }),
  ];
  const book = bookOf({ services, slices: [slice('a/a', [here])] }, 'ip');
  expect(members(book).filter((m) => /-(?:FW|SOURCE-\w+) /.test(m))).toEqual([
    'KUBE-LOAD-BALANCER-FW 203.0.113.1,tcp:80',
    'KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.1,tcp:80,192.0.2.0/24',
    'KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.1,tcp:80,192.0.2.7',
  ]);
});

it('an address of the host is never put on the device', () => {
  const services = [
    service('a/a', { clusterIPs: ['10.96.0.1'], externalIPs: ['192.168.0.2', '203.0.113.9'] }),
  ];
  const book = bookOf({ services, slices: [slice('a/a', [here])] }, 'ip');
  expect([...book.addresses()]).toEqual(['10.96.0.1', '203.0.113.9']);
  expect(book.server('-t 192.168.0.2:80')).toBeDefined();
  expect(members(book)).not.toContain('KUBE-IPVS-IPS 192.168.0.2');
});

it('two Services that claim one address: the first by name has it, then the other', () => {
  // As mere text "a/a-b/tcp" comes before "a/a/tcp".
  const unnamed = [{ name: '', protocol: 'TCP', port: 80, nodePort: 0 }] as const;
  const both = ['a/a', 'a/a-b'].map((name, i) =>
    service(name, {
      clusterIPs: [`10.96.0.${i + 1}`],
      externalIPs: ['203.0.113.9'],
      ports: unnamed,
    }),
  );
  const slices = both.map(({ name }, i) =>
    slice(`a/${name}`, [`10.0.1.${i + 1}`], { ports: unnamed }),
  );
  const ports = portsOf({ services: both, slices });
  const book = new IpvsBook(options('ip'));
  book.update(ports, ports.keys());
  const target = (): string | undefined =>
    book.server('-t 203.0.113.9:80')?.realServers[0]?.address;
  expect(target()).toBe('10.0.1.1');
  ports.delete('a/a/tcp');
  const change = book.update(ports, ['a/a/tcp']);
  expect(target()).toBe('10.0.1.2');
  expect(change.servers.has('-t 203.0.113.9:80')).toBe(true);
  expect(change.addresses).toEqual({ added: [], removed: ['10.96.0.1'] });
});

const claimed = (second: readonly string[] = ['10.0.1.2']): IpvsBook => {
  const services = ['a/a', 'a/b'].map((name, i) =>
    service(name, { clusterIPs: [`10.96.0.${i + 1}`], externalIPs: ['203.0.113.9'] }),
  );
  return bookOf({ services, slices: [slice('a/b', second)] }, 'ip');
};

it('of two Services that claim one address, one without endpoints does not refuse for the other', () => {
  const book = claimed();
  expect(book.server('-t 203.0.113.9:80')?.realServers).toHaveLength(1);
  expect(members(book).filter((m) => m.startsWith('KUBE-NO-'))).toEqual([
    'KUBE-NO-ENDPOINT 10.96.0.1,tcp:80',
  ]);
  expect(book.refuses('-t 203.0.113.9:80')).toBe(false);
});

it('with endpoints of neither it is refused, once', () => {
  const book = claimed([]);
  expect(members(book).filter((m) => m.startsWith('KUBE-NO-ENDPOINT 203'))).toHaveLength(1);
  expect(book.refuses('-t 203.0.113.9:80')).toBe(true);
  expect(book.refuses('-t 203.0.113.9:81')).toBe(false);
});

it('an address that is nobody else’s than this host’s is never served', () => {
  const fields = (...ips: string[]) => ({
    ...external,
    externalIPs: ips.slice(0, 1),
    loadBalancerIngress: ips.map((ip) => ({ ip, ipMode: 'VIP' as const })),
    ports: p80(),
  });
  const services = [service('a/a', fields('127.0.0.1', '169.254.20.10'))];
  // Refusing what comes to listeners on 127.0.0.1 would cut the node off.
  const book = bookOf({ services, slices: [slice('a/a', [here])] }, 'ip', {
    hostAddresses: ['169.254.20.10', ...own.ip],
  });
  expect([...book.addresses()]).toEqual(['10.96.0.1']);
  expect([...book.servers().keys()]).toEqual(['-t 10.96.0.1:80', '-t 169.254.20.10:80']);
  expect(members(book).filter((m) => m.includes('127.0.0.1'))).toEqual([]);
  const ofIPv6 = service('a/a', { ...fields('::1', 'fe80::1'), clusterIPs: ['fd00:96::1'] });
  const slices = [slice('a/a', ['fd00:10::1'])];
  const book6 = bookOf({ services: [ofIPv6], slices }, 'ip6');
  expect([...book6.addresses()]).toEqual(['fd00:96::1']);
});

it.each([
  ['ip', '10.96.0.1', ['0.0.0.0', '239.1.1.1', '255.255.255.255']],
  ['ip6', 'fd00:96::1', ['::', 'ff0e::1']],
] as const)('an address that no host has is never served: %s', (family, clusterIP, ips) => {
  const loadBalancerIngress = ips.map((ip) => ({ ip, ipMode: 'VIP' as const }));
  const fields = { clusterIPs: [clusterIP], externalIPs: ips, loadBalancerIngress };
  const services = [service('a/a', { ...fields, ports: p80() })];
  const book = bookOf({ services, slices: [] }, family);
  // As the host's own, the last two of IPv4 would take away its multicast and broadcast.
  expect([...book.addresses()]).toEqual([clusterIP]);
  expect(members(book)).toEqual([
    expect.stringMatching(/IPVS-IPS /),
    expect.stringMatching(/NO-ENDPOINT /),
  ]);
});

it('nothing is kept of claims that are gone', () => {
  const ports = portsOf({ services: [service('a/a', external)], slices: [slice('a/a', [here])] });
  const claims = new IpvsClaims();
  for (const [key, port] of ports) {
    const { entries } = ipvsPart(port, options('ip'));
    for (const entry of entries) claims.add(key, entry);
    expect([...claims.keys()]).toHaveLength(3);
    for (const entry of entries) claims.delete(key, entry);
  }
  expect([...claims.keys()]).toEqual([]);
});

it('affinity is persistence, and a scheduler has its flags', () => {
  const port = snapshot({
    services: [service('a/a', { clusterIPs: ['10.96.0.1'], affinitySeconds: 10_800 })],
    slices: [slice('a/a', [here])],
  }).ports[0];
  if (port === undefined) throw new Error('no port');
  const [entry] = ipvsPart(
    port,
    options('ip', { scheduler: 'mh', schedulerFlags: 'mh-port' }),
  ).entries;
  expect(entry?.server).toMatchObject({
    persistenceSeconds: 10_800,
    scheduler: 'mh',
    flags: 'mh-port',
  });
});
