import { describe, expect, it } from 'vitest';
import { parseLine, plainPodPackets, vxlanBetween } from './capture.ts';
import { topologyOf } from './topology.ts';

describe('parseLine() reads of a line of tcpdump', () => {
  it.each([
    [
      'IP 192.0.2.11.53124 > 192.0.2.12.8472: UDP, length 110',
      'ip',
      '192.0.2.11',
      '192.0.2.12',
      true,
    ],
    [
      'IP6 fd00:77:a::11.5 > fd00:77:b::13.8472: UDP, length 9',
      'ip6',
      'fd00:77:a::11',
      'fd00:77:b::13',
      true,
    ],
    ['IP 10.244.1.2.8472 > 10.244.2.2.8080: tcp 0', 'ip', '10.244.1.2', '10.244.2.2', false],
    [
      'IP 10.244.1.2 > 10.244.2.2: ICMP echo request, id 1',
      'ip',
      '10.244.1.2',
      '10.244.2.2',
      false,
    ],
  ])('%s', (line, ...expected) => {
    const [family, source, destination, vxlan] = expected;
    expect(parseLine(line)).toEqual({ family, source, destination, vxlan });
  });

  it.each([
    'IP 192.0.2.11.40000 > 192.0.2.12.9: UDP, length 5',
    'ARP, Request who-has 192.0.2.1',
    '',
  ])('nothing: %s', (line) => expect(parseLine(line)).toBeUndefined());
});

describe('of the packets seen', () => {
  const packets = [
    'IP 192.0.2.11.5 > 192.0.2.12.8472: UDP, length 1',
    'IP 192.0.2.12.5 > 192.0.2.11.8472: UDP, length 1',
    'IP 192.0.2.11.5 > 198.51.100.13.8472: UDP, length 1',
    'IP6 fd00:77:a::11.5 > fd00:77:a::12.8472: UDP, length 1',
    'IP 10.244.1.2.5 > 10.244.2.2.8080: tcp 0',
  ].flatMap((line) => parseLine(line) ?? []);
  const topology = topologyOf('test');

  it('vxlanBetween() counts both directions of one pair and family', () => {
    expect(vxlanBetween(packets, topology, ['node1', 'node2', 'ip'])).toBe(2);
    expect(vxlanBetween(packets, topology, ['node1', 'node2', 'ip6'])).toBe(1);
    expect(vxlanBetween(packets, topology, ['node1', 'node3', 'ip'])).toBe(1);
    expect(vxlanBetween(packets, topology, ['node2', 'node3', 'ip'])).toBe(0);
  });

  it('plainPodPackets() counts what is not in VXLAN', () => {
    expect(plainPodPackets(packets, 'ip')).toBe(1);
    expect(plainPodPackets(packets, 'ip6')).toBe(0);
  });
});
