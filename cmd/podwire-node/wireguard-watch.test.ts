import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { ObservedWireguard } from '#pkg/host-network/rtnetlink-wireguard.ts';
import { watchWireguard } from './wireguard-watch.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function device(range: string, port = 51_820): ObservedWireguard {
  return {
    publicKey: 'own',
    port: 51_820,
    peers: [
      {
        kind: 'wireguard-peer',
        link: 'podwire-wg',
        publicKey: 'peer',
        endpoint: { address: parseAddress('192.0.2.2'), port },
        allowedIPs: [parsePrefix(range)],
        keepaliveSeconds: 0,
        presharedKey: undefined,
      },
    ],
  };
}

test('tells of what differs from one look to the next, once; of our own writes, and of devices that are gone, not', () => {
  let answer: () => ObservedWireguard = () => device('10.244.2.0/24');
  const [onChange, onError] = [vi.fn(), vi.fn()];
  using watch = watchWireguard({
    links: () => ['podwire-wg'],
    driver: { look: () => answer() },
    onChange,
    onError,
  });
  vi.advanceTimersByTime(5_000);
  expect(onChange).not.toHaveBeenCalled();
  // Behind a NAT.
  answer = () => device('10.244.2.0/24', 4711);
  vi.advanceTimersByTime(2_000);
  expect(onChange).not.toHaveBeenCalled();
  answer = () => {
    const moved = device('10.244.2.0/24', 4711);
    return { ...moved, peers: moved.peers.map((peer) => ({ ...peer, moved: true })) };
  };
  vi.advanceTimersByTime(2_000);
  expect(onChange).toHaveBeenCalledOnce();
  onChange.mockClear();
  watch.wrote(
    device('10.244.2.0/24').peers.map((object) => ({ op: 'put', object, replaces: undefined })),
  );
  answer = () => device('10.244.2.0/24');
  vi.advanceTimersByTime(2_000);
  expect(onChange).not.toHaveBeenCalled();
  answer = () => device('10.0.0.0/8');
  vi.advanceTimersByTime(2_000);
  expect(onChange).toHaveBeenCalledOnce();
  const peers = device('10.244.2.0/24').peers;
  watch.wrote(peers.map((object) => ({ op: 'put', object, replaces: undefined })));
  answer = () => device('10.244.2.0/24');
  vi.advanceTimersByTime(2_000);
  expect(onChange).toHaveBeenCalledOnce();
  // Somebody takes away what we have put since the last look.
  watch.wrote(peers.map((object) => ({ op: 'put', object, replaces: undefined })));
  answer = () => ({ ...device('10.244.2.0/24'), peers: [] });
  vi.advanceTimersByTime(1_000);
  expect(onChange).toHaveBeenCalledTimes(2);
  watch.wrote(peers.map((object) => ({ op: 'put', object, replaces: undefined })));
  vi.advanceTimersByTime(1_000);
  expect(onChange).toHaveBeenCalledTimes(3);
  watch.wrote(peers.map((object) => ({ op: 'delete', object })));
  vi.advanceTimersByTime(1_000);
  expect(onChange).toHaveBeenCalledTimes(3);
  answer = () => {
    throw new AgentError('ENODEV', 'gone');
  };
  vi.advanceTimersByTime(2_000);
  expect(onError).not.toHaveBeenCalled();
  answer = () => {
    throw new AgentError('EPERM', 'not allowed');
  };
  vi.advanceTimersByTime(1_000);
  expect(onError).toHaveBeenCalled();
});
