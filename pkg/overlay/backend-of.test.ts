import { describe, expect, test } from 'vitest';
import { backendOf, formerDevices, type BackendOptions } from './backend-of.ts';
import { backendTypes } from './backend.ts';
import { announce, onlyIp4, peer, same } from './testdata/nodes.ts';

const options: BackendOptions = {
  backend: 'vxlan',
  vni: 1,
  port: 8472,
  directRouting: false,
  mtuBytes: 1300,
  bgp: { asNumber: 64_512, reflectors: [] },
  wireguard: {
    mode: 'separate',
    publicKey: 'AAAA',
    port: 51_820,
    portV6: 51_821,
    keepaliveSeconds: 0,
    presharedKey: undefined,
  },
};

describe('backendOf()', () => {
  test.each(backendTypes)('%s announces itself by its name and keeps to the limit', (backend) => {
    const result = backendOf({ ...options, backend })([], onlyIp4);
    expect(result.announcements.ip?.backend).toBe(backend);
    expect(result.mtuBytes).toBe(1300);
  });
});

describe('formerDevices()', () => {
  const near = same('b', 2);
  const objects = backendOf({ ...options, backend: 'host-gw' })(
    [near, peer('c', 3)],
    onlyIp4,
  ).objects;

  test('a peer that we reach and that still sends by VXLAN keeps our VXLAN device', () => {
    expect([...formerDevices([near], objects, 'host-gw')]).toEqual(['vxlan']);
  });

  test.each([
    ['does not reach us any more', peer('c', 3)],
    ['has changed too', { ...near, announcements: { ip: announce('host-gw', '192.168.1.2') } }],
    ['has announced nothing', { ...near, announcements: {} }],
  ])('one that %s does not', (_, node) => {
    expect([...formerDevices([node], objects, 'host-gw')]).toEqual([]);
  });
});
