import { describe, expect, test } from 'vitest';
import { addressBytes, formatAddress, parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { ForwardingTable } from './forwarding-table.ts';

const table = new ForwardingTable(
  [
    ['10.244.2.0/24', '192.0.2.2'],
    ['10.244.0.0/16', '192.0.2.9'],
    ['200.0.0.0/8', '192.0.2.8'],
    ['fd00:10:244:2::/64', '2001:db8::2'],
    ['fd00:10:244:ff80::/57', '2001:db8::3'],
  ].map(([destination = '', remote = '']) => ({
    destination: parsePrefix(destination),
    remote: parseAddress(remote),
  })),
  ({ remote }) => formatAddress(remote),
);

/** An IP header with nothing in it but version and destination. */
function packetTo(text: string): DataView {
  const address = parseAddress(text);
  const v4 = address.family === 'ip';
  const bytes = new Uint8Array(v4 ? 20 : 40);
  bytes[0] = v4 ? 0x45 : 0x60;
  bytes.set(addressBytes(address), v4 ? 16 : 24);
  return new DataView(bytes.buffer);
}

describe('ForwardingTable', () => {
  test.each([
    ['10.244.2.9', '192.0.2.2'],
    ['10.244.3.9', '192.0.2.9'],
    ['200.1.2.3', '192.0.2.8'],
    ['10.245.0.1', undefined],
    ['fd00:10:244:2::9', '2001:db8::2'],
    ['fd00:10:244:ffff::1', '2001:db8::3'],
    ['fd00:10:244:3::9', undefined],
  ])('a packet to %s goes to %s', (destination, remote) => {
    const packet = packetTo(destination);
    expect(table.find(packet, packet.byteLength)).toBe(remote);
  });

  test('what is no whole IP header goes nowhere', () => {
    const packet = packetTo('10.244.2.9');
    expect(table.find(packet, 19)).toBeUndefined();
    expect(table.find(packet, 0)).toBeUndefined();
    packet.setUint8(0, 0x75);
    expect(table.find(packet, 20)).toBeUndefined();
  });
});
