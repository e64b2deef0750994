import { describe, expect, it } from 'vitest';
import { parseCniArgs } from './cni-args.ts';
import {
  parseNetworkConfig,
  readPrevResult,
  readValidAttachments,
  type NetworkConfig,
} from './config.ts';
import { readInteger, readObjects, readString } from './json-fields.ts';

function configOf(fields: object): NetworkConfig {
  return parseNetworkConfig(JSON.stringify({ cniVersion: '1.1.0', name: 'net', ...fields }));
}

describe('parseCniArgs()', () => {
  const kubernetes =
    'K8S_POD_NAME=a;IgnoreUnknown=1;K8S_POD_UID=b;MAC=c2:11:22:33:44:55;K8S_POD_NAMESPACE=ns';
  it('16. reads what it knows wherever IgnoreUnknown stands', () => {
    expect(parseCniArgs(kubernetes, ['MAC', 'IP'])).toEqual({ MAC: 'c2:11:22:33:44:55' });
  });
  it('reads nothing from nothing', () => expect(parseCniArgs('', ['IP'])).toEqual({}));
  it.each([
    ['A=1;B', '"B" is not one KEY=value pair'],
    ['A=1=2', '"A=1=2" is not one KEY=value pair'],
    ['UNKNOWN=1', 'unknown keys UNKNOWN'],
    ['UNKNOWN=1;IgnoreUnknown=0', 'unknown keys UNKNOWN'],
    ['IgnoreUnknown=yes', 'expected 1, 0, true or false'],
  ])('16. refuses %s', (text, message) => {
    expect(() => parseCniArgs(text, ['IP'])).toThrow(message);
  });
});

describe('field readers', () => {
  it.each([
    ['bridge', { bridge: 3 }, 'field "bridge": expected a string, got 3'],
    ['mtu', { mtu: 1.5 }, 'field "mtu": expected a whole number from 68 to 65535, got 1.5'],
    ['mtu', { mtu: 10 }, 'got 10'],
    ['mtu', { mtu: '1500' }, 'got "1500"'],
  ])('name %s and what was expected', (key, fields, message) => {
    const config = configOf(fields);
    const read = (): unknown =>
      key === 'mtu'
        ? readInteger(config.fields, key, { min: 68, max: 65535 })
        : readString(config.fields, key);
    expect(read).toThrow(message);
  });
  it('name fields in arrays by their place', () => {
    const [first] = readObjects(configOf({ routes: [{ dst: 1 }] }).fields, 'routes');
    expect(() => first && readString(first, 'dst')).toThrow('field "routes[0].dst"');
  });
});

describe('readPrevResult()', () => {
  it('is undefined without one', () => expect(readPrevResult(configOf({}))).toBeUndefined());
  it('reads any version', () => {
    const prevResult = { cniVersion: '0.2.0', ip4: { ip: '10.0.0.2/24' } };
    expect(readPrevResult(configOf({ prevResult }))?.ips).toHaveLength(1);
  });
});

describe('readValidAttachments()', () => {
  const list = [{ containerID: 'a', ifname: 'eth0' }];
  it.each(['cni.dev/valid-attachments', 'cni.dev/attachments'])('reads %s', (key) => {
    expect(readValidAttachments(configOf({ [key]: list }))).toEqual([
      { containerId: 'a', ifName: 'eth0' },
    ]);
  });
  it('takes an empty list as "none is valid"', () => {
    expect(readValidAttachments(configOf({ 'cni.dev/valid-attachments': [] }))).toEqual([]);
  });
  it('145. reads null as none: CRI-O writes its empty list so, when no pod runs', () => {
    const none = { 'cni.dev/valid-attachments': null, 'cni.dev/attachments': null };
    expect(readValidAttachments(configOf(none))).toEqual([]);
    const older = { ...none, 'cni.dev/attachments': [{ containerID: 'a', ifname: 'eth0' }] };
    expect(readValidAttachments(configOf(older))).toHaveLength(1);
  });
  it.each([
    {},
    { 'cni.dev/valid-attachments': 'a' },
    { 'cni.dev/valid-attachments': [{ containerID: 'a' }] },
  ])('145. refuses %j: nobody asked to delete everything', (fields) => {
    expect(() => readValidAttachments(configOf(fields))).toThrow('cni.dev/valid-attachments');
  });
});
