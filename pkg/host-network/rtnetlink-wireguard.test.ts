import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { attribute, attributeU16, concatBytes, nested } from '#pkg/netlink/attribute.ts';
import {
  CTRL_ATTR_FAMILY_ID,
  WGDEVICE_A_PEERS,
  WGPEER_A_LAST_HANDSHAKE_TIME,
  WGPEER_A_PUBLIC_KEY,
} from '#pkg/netlink/constants.ts';
import { genericHeader } from '#pkg/netlink/generic.ts';
import type { Message } from '#pkg/netlink/message.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { WireguardDriver } from './rtnetlink-wireguard.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function message(...attributes: readonly Uint8Array[]): Message {
  const body = concatBytes([genericHeader(0, 1), ...attributes]);
  return { type: 31, flags: 0, sequence: 1, body };
}

/** A kernel with a device whose peer had its last handshake then. */
function kernelWith(handshakeAtSeconds: () => number): NetlinkSocket {
  const answers = {
    request: () => [message(attributeU16(CTRL_ATTR_FAMILY_ID, 31))],
    dump: () => [
      message(
        nested(WGDEVICE_A_PEERS, [
          nested(0, [
            attribute(WGPEER_A_PUBLIC_KEY, new Uint8Array(32)),
            attribute(
              WGPEER_A_LAST_HANDSHAKE_TIME,
              new Uint8Array(BigInt64Array.of(BigInt(handshakeAtSeconds()), 0n).buffer),
            ),
          ]),
        ]),
      ),
    ],
  };
  return answers as unknown as NetlinkSocket;
}

test.each([3600, -3600])('a clock that is set by %s s ends no session, nor makes it last', (by) => {
  let handshakeAtSeconds = 0;
  const driver = new WireguardDriver(
    kernelWith(() => handshakeAtSeconds),
    undefined,
  );
  const isLive = (): boolean => driver.read('podwire-wg').peers[0]?.live === true;
  expect(isLive()).toBe(false);
  handshakeAtSeconds = Math.floor(Date.now() / 1000);
  expect(isLive()).toBe(true);
  vi.setSystemTime(Date.now() + by * 1000);
  vi.advanceTimersByTime(100_000);
  expect(isLive()).toBe(true);
  vi.advanceTimersByTime(81_000);
  expect(isLive()).toBe(false);
});

test('a clock that is set between a handshake and the look after it makes that no older', () => {
  let handshakeAtSeconds = 0;
  const driver = new WireguardDriver(
    kernelWith(() => handshakeAtSeconds),
    undefined,
  );
  const isLive = (): boolean => driver.read('podwire-wg').peers[0]?.live === true;
  expect(isLive()).toBe(false);
  handshakeAtSeconds = Math.floor(Date.now() / 1000);
  vi.setSystemTime(Date.now() + 3_600_000);
  expect(isLive()).toBe(true);
});

test.each([
  [100, true],
  [200, false],
])('of a handshake before the first look, %s s ago, the clock tells', (agoSeconds, live) => {
  const handshakeAtSeconds = Math.floor(Date.now() / 1000) - agoSeconds;
  const driver = new WireguardDriver(
    kernelWith(() => handshakeAtSeconds),
    undefined,
  );
  expect(driver.read('podwire-wg').peers[0]?.live === true).toBe(live);
});
