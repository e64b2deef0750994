import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { parseCluster } from '#pkg/overlay/node-facts.ts';
import {
  changeLeaseValue,
  formatLeaseKey,
  leaseRecord,
  parseLeaseKey,
  parseLeaseValue,
} from './subnet-lease.ts';

const prefix = 'podwire.dev/';
const v4 = { ip: parsePrefix('10.3.1.0/24'), ip6: undefined };
const dual = { ip: parsePrefix('10.3.1.0/24'), ip6: parsePrefix('fd00:1:0:1::/64') };

describe('the key', () => {
  test.each([
    ['10.3.1.0-24', v4],
    ['10.3.1.0-24&fd00:1:0:1::-64', dual],
  ])('129. %s', (text, subnets) => {
    expect(parseLeaseKey(text)).toEqual(subnets);
    expect(formatLeaseKey(subnets)).toBe(text);
  });

  test.each([
    '10.3.1.1-24',
    '10.3.1.0',
    '10.3.1.0/24x',
    'fd00::-64',
    '10.3.1.0-24&10.3.2.0-24',
    '10.3.1.0-24&fd00::1-64',
    '10.3.1.0-24&fd00::-64&fd01::-64',
    'config',
    '',
  ])('129. %j is none', (text) => {
    expect(parseLeaseKey(text)).toBeUndefined();
  });
});

/** As flannel 0.28 writes it. */
const flannel =
  '{"PublicIP":"192.168.1.2","PublicIPv6":"fd00::2","BackendType":"vxlan",' +
  '"BackendData":{"VNI":1,"VtepMAC":"aa:f5:4e:01:02:03"},' +
  '"BackendV6Data":{"VNI":1,"VtepMAC":"ee:f5:4e:01:02:03"}}';

function record(text: string, own?: Parameters<typeof leaseRecord>[2]) {
  const value = parseLeaseValue(text) ?? {};
  return leaseRecord(
    { subnets: dual, value, createRevision: '12', modRevision: '34' },
    prefix,
    own,
  );
}

test("a flannel node's lease gives the facts that its Node would", () => {
  const { nodes, problems } = parseCluster([record(flannel)], {
    selfName: 'a',
    annotationPrefix: prefix,
  });
  expect(problems).toEqual([]);
  const name = '10.3.1.0-24&fd00:1:0:1::-64';
  expect(nodes.get(name)).toMatchObject({
    name,
    podCIDRs: dual,
    internalIPs: [parseAddress('192.168.1.2'), parseAddress('fd00::2')],
    announcements: {
      ip: {
        backend: 'vxlan',
        publicIP: parseAddress('192.168.1.2'),
        vtep: { vni: 1, mac: 'aa:f5:4e:01:02:03' },
      },
      ip6: {
        backend: 'vxlan',
        publicIP: parseAddress('fd00::2'),
        vtep: { vni: 1, mac: 'ee:f5:4e:01:02:03' },
      },
    },
  });
});

test('null is nothing, as flannel writes what it has not', () => {
  const text =
    '{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"host-gw","BackendData":null}';
  expect(record(text).annotations).toEqual({
    'podwire.dev/public-ip': '1.2.3.4',
    'podwire.dev/backend-type': 'host-gw',
  });
});

test('the own lease has the name and the addresses of the host', () => {
  const own = { name: 'a', addresses: [parseAddress('10.0.0.1')] };
  expect(record(flannel, own)).toMatchObject({ name: 'a', internalIPs: ['10.0.0.1'] });
});

test('the older lease sorts first', () => {
  const created = (createRevision: string): string =>
    leaseRecord({ subnets: v4, value: {}, createRevision, modRevision: '9' }, prefix).createdAt;
  expect(created('9') < created('10')).toBe(true);
});

test.each(['', '[]', '1', 'null', '{'])('%j is no value', (text) => {
  expect(parseLeaseValue(text)).toBeUndefined();
});

test('a patch of annotations changes what they stand for', () => {
  const value = { PublicIP: '1.2.3.4', BackendV6Data: { VNI: 1 }, Other: 'stays' };
  const patch = {
    'podwire.dev/backend-type': 'vxlan',
    'podwire.dev/backend-data': '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}',
    'podwire.dev/backend-v6-data': null,
    'podwire.dev/kube-subnet-manager': 'true',
    'elsewhere/public-ip': '5.6.7.8',
  };
  expect(changeLeaseValue(value, patch, prefix)).toEqual({
    PublicIP: '1.2.3.4',
    BackendType: 'vxlan',
    BackendData: { VNI: 1, VtepMAC: '02:00:00:00:00:01' },
    Other: 'stays',
  });
});
