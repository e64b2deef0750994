import { describe, expect, test } from 'vitest';
import { isAnnounced, sessionReason, sessionStates } from './state.ts';

describe('what FRR says of itself', () => {
  test('states of sessions in all families', () => {
    const text = JSON.stringify({
      ipv4Unicast: { as: 64512, peers: { '10.0.0.1': { state: 'Established' } } },
      ipv6Unicast: { peers: { 'fd00::1': { state: 'Active' }, 'fd00::2': {} } },
    });
    expect([...sessionStates(text)]).toEqual([
      ['10.0.0.1', 'Established'],
      ['fd00::1', 'Active'],
    ]);
    expect([...sessionStates('{}')]).toEqual([]);
  });

  test.each([
    [{ lastNotificationReason: 'OPEN/Bad Peer AS', lastResetDueTo: 'x' }, 'OPEN/Bad Peer AS'],
    [{ lastNotificationReason: '', lastResetDueTo: 'Waiting for NHT' }, 'Waiting for NHT'],
    [{}, ''],
  ])('why a session is not up: %j', (peer, reason) => {
    expect(sessionReason(JSON.stringify({ '10.0.0.1': peer }), '10.0.0.1')).toBe(reason);
  });

  test.each([
    [{ paths: [{ local: true, valid: true }] }, true],
    [{ paths: [{ local: true, valid: false }] }, false],
    // A peer's.
    [{ paths: [{ valid: true }] }, false],
    [{}, false],
  ])('whether a route is announced: %j', (route, announced) => {
    expect(isAnnounced(JSON.stringify(route))).toBe(announced);
  });

  test('anything but JSON is an error', () => {
    expect(() => sessionStates('% Unknown command')).toThrow(
      'Cannot read what FRR says: expected JSON, got "% Unknown command"',
    );
  });
});
