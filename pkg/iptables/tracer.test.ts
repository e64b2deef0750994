import { describe, expect, it } from 'vitest';
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { Outcome } from '#pkg/ip/packet-trace.ts';
import type { Ruleset } from './ruleset.ts';
import { tracePacket, type Packet } from './tracer.ts';

const packet: Packet = {
  source: '10.0.0.2',
  destination: '10.0.0.9',
  protocol: 'tcp',
  port: 80,
};

/** Traces through chain KUBE-A of filter, which every forwarded packet meets. */
function traced(rules: readonly string[], fields: Partial<Packet> = {}): Outcome[] {
  const ruleset: Ruleset = {
    family: 'ip',
    tables: [
      {
        name: 'filter',
        chains: new Map([
          ['KUBE-A', rules],
          ['KUBE-B', ['-p udp -j RETURN', '-j DROP']],
        ]),
        jumps: new Map([['FORWARD', ['-j KUBE-A']]]),
      },
    ],
  };
  return tracePacket(ruleset, { ...packet, ...fields }, { addresses: [] });
}

describe('tracePacket()', () => {
  it('comes back from a chain that returned, and goes on', () => {
    const rules = ['-j KUBE-B', '-j REJECT --reject-with icmp-port-unreachable'];
    expect(traced(rules).map((o) => o.verdict)).toEqual(['drop']);
    expect(traced(rules, { protocol: 'udp' }).map((o) => o.verdict)).toEqual(['reject']);
  });

  it('goes both ways where chance decides', () => {
    const rules = ['-m statistic --mode random --probability 0.50000000000 -j DROP'];
    expect(
      traced(rules)
        .map((o) => o.verdict)
        .toSorted(),
    ).toEqual(['accept', 'drop']);
  });

  it('tells the rules that acted, in order', () => {
    const outcomes = traced(['-d 10.9.9.9/32 -j DROP', '-m comment --comment "to b" -j KUBE-B']);
    expect(outcomes[0]?.trail).toEqual([
      'filter FORWARD -j KUBE-A',
      'filter KUBE-A -m comment --comment "to b" -j KUBE-B',
      'filter KUBE-B -j DROP',
    ]);
  });

  it.each([
    ['! -s 10.0.0.0/8 -j DROP', 'accept'],
    ['! -s 11.0.0.0/8 -j DROP', 'drop'],
    ['-i eth+ -j DROP', 'drop'],
    ['-i eth1 -j DROP', 'accept'],
    ['-m conntrack --ctstate RELATED,NEW -j DROP', 'drop'],
    ['-m conntrack ! --ctstate NEW -j DROP', 'accept'],
    ['-m mark --mark 0x4000/0x4000 -j DROP', 'accept'],
    ['-m mark ! --mark 0x4000/0x4000 -j DROP', 'drop'],
    ['-m addrtype --dst-type LOCAL -j DROP', 'accept'],
    ['-m comment --comment "-j DROP"', 'accept'],
  ])('reads %s', (rule, verdict) => {
    expect(traced([rule], { inInterface: 'eth0' })[0]?.verdict).toBe(verdict);
  });

  it('knows the highest bit of the mark', () => {
    const bit = '0x80000000/0x80000000';
    const rules = [`-j MARK --set-xmark ${bit}`, `-m mark --mark ${bit} -j DROP`];
    expect(traced(rules)[0]?.verdict).toBe('drop');
  });

  it.each(['-m time --timestart 10:00 -j DROP', '-j NFQUEUE', '-j KUBE-MISSING'])(
    'refuses to guess what %j does',
    (rule) => {
      let error: unknown;
      try {
        traced([rule]);
      } catch (thrown) {
        error = thrown;
      }
      expect(isErrno(error, 'UnknownRule')).toBe(true);
    },
  );
});
