import { describe, expect, it } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { AttachmentRecord } from './attachment-record.ts';
import { elementLine } from './element-line.ts';
import { podElements } from './pod-elements.ts';

const pod: AttachmentRecord = {
  network: 'pods',
  containerId: 'abc',
  ifName: 'eth0',
  mode: 'bridge',
  hostLink: 'veth1',
  reachedBy: 'cni0',
  mac: '0a:58:0a:f4:01:02',
  addresses: [parsePrefix('10.244.1.2/24'), parsePrefix('fd00::2/64')],
  hostPorts: [
    { protocol: 'tcp', hostPort: 8080, containerPort: 80, hostIp: undefined },
    { protocol: 'udp', hostPort: 53, containerPort: 5353, hostIp: parseAddress('192.0.2.1') },
  ],
  antiSpoofing: true,
  iptables: false,
};
const linesOf = (record: AttachmentRecord): (string | undefined)[] =>
  podElements(record).map(elementLine);

describe('an element as nft takes it', () => {
  it('has the fields of its set, and whose it is', () => {
    const ports = 'add element inet podwire-hostport';
    const guard = 'add element bridge podwire-antispoof';
    const own = 'comment "pods abc eth0"';
    expect(linesOf(pod)).toEqual([
      `${ports} any4 { 6 . 8080 ${own} : 10.244.1.2 . 80 }`,
      `${ports} any6 { 6 . 8080 ${own} : fd00::2 . 80 }`,
      `${ports} specific4 { 192.0.2.1 . 17 . 53 ${own} : 10.244.1.2 . 5353 }`,
      `${ports} selves4 { 10.244.1.2 . 10.244.1.2 ${own} }`,
      `${ports} returns4 { 10.244.1.2 . "cni0" ${own} }`,
      `${ports} selves6 { fd00::2 . fd00::2 ${own} }`,
      `${ports} returns6 { fd00::2 . "cni0" ${own} }`,
      `${guard} links { "veth1" ${own} }`,
      `${guard} macs { "veth1" . 0a:58:0a:f4:01:02 ${own} }`,
      `${guard} addresses4 { "veth1" . 10.244.1.2 ${own} }`,
      `${guard} addresses6 { "veth1" . fd00::2 ${own} }`,
      `${guard} targets6 { "veth1" . 0xfd000000000000000000000000000002 ${own} }`,
      `${guard} addresses6 { "veth1" . fe80::858:aff:fef4:102 ${own} }`,
      `${guard} targets6 { "veth1" . 0xfe8000000000000008580afffef40102 ${own} }`,
    ]);
  });

  it('is one in every table of a routed pod', () => {
    const lines = linesOf({ ...pod, mode: 'routed', hostPorts: [] });
    expect(lines).toContain(
      'add element arp podwire-antispoof links { "veth1" comment "pods abc eth0" }',
    );
    expect(lines).not.toContain(undefined);
  });

  it.each([['veth*'], ['a"b'], ['a\\']])('is none for a link named %j', (hostLink) => {
    const lines = linesOf({ ...pod, hostLink, hostPorts: [] });
    expect(new Set(lines)).toEqual(new Set([undefined]));
  });

  it('is none for an interface with a quote in its name', () => {
    expect(new Set(linesOf({ ...pod, ifName: 'e"0' }))).toEqual(new Set([undefined]));
  });
});
