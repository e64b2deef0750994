import { describe, expect, it } from 'vitest';
import { addressBytes, parseAddress } from '#pkg/ip/address.ts';
import type { CountedFlow } from '#pkg/netlink/conntrack-counters.ts';
import { ServiceAccounts } from './service-accounts.ts';
import { ServiceModel } from './service-model.ts';
import { asChanges, nodeName, p80, service, slice } from './testdata/records.ts';

const numbers = { tcp: 6, udp: 17, icmp: 1 } as const;

/** "tcp 172.30.0.1 80 = 10.1.0.1 8080", which carried a packet of 100 bytes. */
function flow(text: string): CountedFlow {
  const [protocol = '', to = '', port, , server = '', serverPort] = text.split(' ');
  const bytes = (address: string): Uint8Array => addressBytes(parseAddress(address));
  return {
    id: 1,
    ended: true,
    protocol: numbers[protocol as keyof typeof numbers],
    address: bytes(to),
    port: Number(port),
    server: bytes(server),
    serverPort: Number(serverPort),
    packetsIn: 1,
    bytesIn: 100,
    packetsOut: 0,
    bytesOut: 0,
  };
}

const web = (fields: Partial<Parameters<typeof service>[1]> = {}) =>
  service('a/web', {
    clusterIPs: ['172.30.0.1'],
    externalIPs: ['192.0.2.1'],
    type: 'NodePort',
    ports: p80(30080),
    ...fields,
  });

function served() {
  const accounts = new ServiceAccounts();
  const model = new ServiceModel('ip', { name: nodeName, zone: undefined });
  const update = (input: Parameters<typeof asChanges>[0]): void => {
    accounts.update('ip', model.update(asChanges(input)));
  };
  update({ services: [web()], slices: [slice('a/web', ['10.1.0.1', '10.1.0.2'])] });
  return {
    accounts,
    update,
    carry: (text: string): void => {
      for (const account of accounts.of(flow(text))) account.in.bytes += 100;
    },
    total: (frontend: string) => accounts.total('ip', frontend)?.in.bytes,
    endpoint: (frontend: string, at: string) => accounts.endpoint('ip', frontend, at)?.in.bytes,
  };
}

describe('a translated flow belongs', () => {
  it('to where its first packet went, and to who answers', () => {
    const s = served();
    s.carry('tcp 172.30.0.1 80 = 10.1.0.1 80');
    s.carry('tcp 172.30.0.1 80 = 10.1.0.2 80');
    s.carry('tcp 192.0.2.1 80 = 10.1.0.2 80');
    expect(s.total('172.30.0.1 . tcp . 80')).toBe(200);
    expect(s.endpoint('172.30.0.1 . tcp . 80', '10.1.0.1 80')).toBe(100);
    expect(s.endpoint('172.30.0.1 . tcp . 80', '10.1.0.2 80')).toBe(100);
    expect(s.total('192.0.2.1 . tcp . 80')).toBe(100);
  });

  it.each([
    'udp 172.30.0.1 80 = 10.1.0.1 80',
    'tcp 172.30.0.1 81 = 10.1.0.1 80',
    'tcp 172.30.0.2 80 = 10.1.0.1 80',
    'icmp 172.30.0.1 80 = 10.1.0.1 80',
    'tcp fd00::1 30080 = fd00::2 80',
  ])('to nobody: %s', (text) => {
    expect(served().accounts.of(flow(text))).toEqual([]);
  });

  it('to a node port at whatever address, if one of its endpoints answers', () => {
    const s = served();
    s.carry('tcp 192.168.0.2 30080 = 10.1.0.1 80');
    // Somebody else's host port of the same number.
    s.carry('tcp 192.168.0.2 30080 = 10.9.0.9 80');
    expect(s.total('tcp . 30080')).toBe(100);
  });
});

describe('when Services change', () => {
  it('an endpoint that left takes its own account along, and not the Service’s', () => {
    const s = served();
    s.carry('tcp 172.30.0.1 80 = 10.1.0.1 80');
    s.update({ services: [], slices: [slice('a/web', ['10.1.0.2'])] });
    expect(s.total('172.30.0.1 . tcp . 80')).toBe(100);
    expect(s.endpoint('172.30.0.1 . tcp . 80', '10.1.0.1 80')).toBeUndefined();
    // One of its connections ends only now.
    s.carry('tcp 172.30.0.1 80 = 10.1.0.1 80');
    expect(s.total('172.30.0.1 . tcp . 80')).toBe(200);
    expect(s.endpoint('172.30.0.1 . tcp . 80', '10.1.0.1 80')).toBeUndefined();
  });

  it('an address that goes is forgotten, others are not', () => {
    const s = served();
    s.carry('tcp 172.30.0.1 80 = 10.1.0.1 80');
    s.carry('tcp 192.0.2.1 80 = 10.1.0.2 80');
    s.update({ services: [web({ externalIPs: [] })], slices: [] });
    expect(s.total('172.30.0.1 . tcp . 80')).toBe(100);
    expect(s.total('192.0.2.1 . tcp . 80')).toBeUndefined();
  });

  it('an address that two claim stays while one does', () => {
    const s = served();
    const other = service('a/other', { clusterIPs: ['172.30.0.9'], externalIPs: ['192.0.2.1'] });
    s.update({ services: [other], slices: [slice('a/other', ['10.1.0.9'])] });
    s.carry('tcp 192.0.2.1 80 = 10.1.0.9 80');
    s.update({ services: [web({ externalIPs: [] })], slices: [] });
    expect(s.total('192.0.2.1 . tcp . 80')).toBe(100);
    expect(s.endpoint('192.0.2.1 . tcp . 80', '10.1.0.9 80')).toBe(100);
  });
});
