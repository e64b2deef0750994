import { describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { parseIpSetSizes } from '#pkg/ipset/parse.ts';
import { parseIpvsProc } from '#pkg/ipvs/parse.ts';
import type { VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { differencesBetween, watchIpvs, type IpvsSight } from './ipvs-drift.ts';
import type { IpvsKnown } from './ipvs-writer.ts';

const server = (address: string, ...weights: number[]): VirtualServer => ({
  family: address.includes(':') ? 'ip6' : 'ip',
  protocol: 'tcp',
  address,
  port: 80,
  scheduler: 'rr',
  flags: '',
  persistenceSeconds: 0,
  realServers: weights.map((weight, i) => ({ address: `10.1.0.${i + 2}`, port: 8080, weight })),
});
const known: IpvsKnown = {
  servers: new Map([
    ['-t 172.30.0.1:80', { ...server('172.30.0.1', 1, 0), persistenceSeconds: 10_800 }],
    ['-t 172.30.0.2:80', server('172.30.0.2', 1)],
  ]),
  sets: new Map([
    ['KUBE-CLUSTER-IP', 2],
    ['KUBE-NO-ENDPOINT', 0],
  ]),
  addresses: new Set(['172.30.0.1', '172.30.0.2']),
};
/** As the kernel of the VM prints it, net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_info_seq_show(). */
const proc = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  AC1E0001:0050 rr persistent 2700000 FFFFFFFF
  -> 0A010003:1F90      Masq    0      3          0
  -> 0A010002:1F90      Masq    1      0          4
TCP  AC1E0002:0050 rr
  -> 0A010002:1F90      Masq    1      0          0
FWM  00000007 rr
  -> 0A010009:0000      Masq    1      0          0
UDP  [fd00:0096:0000:0000:0000:0000:0000:0001]:0035 mh (mh-port)
  -> [fd00:0010:0002:0000:0000:0000:0000:0002]:2328      Masq    1      0          0
`;
const terse = `Name: KUBE-CLUSTER-IP
Type: hash:ip,port
Revision: 7
Header: family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x5a0a2b66
Size in memory: 408
References: 3
Number of entries: 2

Name: KUBE-NO-ENDPOINT
Type: hash:ip,port
Size in memory: 208
References: 2
Number of entries: 0
`;
const sight = (changes: Partial<IpvsSight> = {}): IpvsSight => ({
  servers: parseIpvsProc(proc),
  sets: parseIpSetSizes(terse),
  addresses: known.addresses,
  ...changes,
});
const differences = (seen: IpvsSight, isOurs = (): boolean => true): string[] =>
  differencesBetween(known, seen, 'ip', isOurs);
const procWith = (from: string | RegExp, to: string): IpvsSight =>
  sight({ servers: parseIpvsProc(proc.replace(from, to)) });

describe('differencesBetween()', () => {
  it('finds none where nobody changed anything, connections and the other family aside', () => {
    expect(differences(sight())).toEqual([]);
  });

  it('finds none where an endpoint that leaves was told something else before', () => {
    const [[key, first], ...rest] = [...known.servers] as [[string, VirtualServer]];
    const realServers = first.realServers.map((real) =>
      real.weight === 0 ? { ...real, foreign: '-g' } : real,
    );
    const servers = new Map([[key, { ...first, realServers }], ...rest]);
    const seen = procWith('Masq    0', 'Route   0');
    expect(differencesBetween({ ...known, servers }, seen, 'ip', () => true)).toEqual([]);
  });

  it.each([
    [
      'a server that is gone',
      procWith(/TCP {2}AC1E0002[^F]*/, ''),
      /^virtual server -t 172.30.0.2:80 is gone$/,
    ],
    [
      'another scheduler',
      procWith('AC1E0002:0050 rr', 'AC1E0002:0050 wlc'),
      /172.30.0.2:80 is another/,
    ],
    [
      'affinity that is gone',
      procWith('persistent 2700000 FFFFFFFF', ''),
      /172.30.0.1:80 is another/,
    ],
    [
      'affinity where there is none',
      procWith(/(0002:0050 rr)/, '$1 persistent 9 FFFFFFFF'),
      /2:80 is/,
    ],
    [
      'scheduling of single packets',
      procWith('0002:0050 rr', '0002:0050 rr ops'),
      /0.2:80 is another/,
    ],
    ['another way to forward', procWith('Masq    0', 'Route   0'), /172.30.0.1:80 is another/],
    ['another weight', procWith('Masq    0', 'Masq    1'), /172.30.0.1:80 is another/],
    ['an endpoint that is gone', procWith(/ {2}-> 0A010003.*\n/, ''), /172.30.0.1:80 is another/],
    [
      'a server that is new',
      procWith('FWM  00000007', 'TCP  AC1E0009:0050'),
      /172.30.0.9:80 is new/,
    ],
    [
      'members of a set',
      sight({ sets: parseIpSetSizes(terse.replace('entries: 2', 'entries: 1')) }),
      /KUBE-CLUSTER-IP has 1 of 2/,
    ],
    [
      'an address that is gone',
      sight({ addresses: new Set(['172.30.0.1']) }),
      /address 172.30.0.2 is gone/,
    ],
    [
      'an address that is new',
      sight({ addresses: new Set(['172.30.0.1', '172.30.0.2', '172.30.0.3']) }),
      /address 172.30.0.3 is new/,
    ],
  ])('finds %s', (_, seen, difference) => {
    expect(differences(seen)).toEqual([expect.stringMatching(difference)]);
  });

  it('leaves servers of others alone', () => {
    const seen = procWith('FWM  00000007', 'TCP  AC1E0009:0050');
    expect(differences(seen, () => false)).toEqual([]);
  });
});

describe('watchIpvs()', () => {
  it('doubts a family that differs, not one that is written meanwhile, and grows patient', async () => {
    const clock = new FakeClock();
    const stop = new AbortController();
    const doubts: string[] = [];
    let seen = sight();
    let looks = 0;
    let isWriting = false;
    const writer = {
      get known() {
        return isWriting ? { ...known } : known;
      },
      doubt: () => void doubts.push('ip'),
    };
    const watching = watchIpvs(
      {
        look: async () => {
          looks += 1;
          return () => seen;
        },
        writers: new Map([['ip', writer]]),
        isOurs: () => true,
        clock,
        log: silentLogger,
      },
      () => void doubts.push('request'),
      stop.signal,
    );
    const pass = async (ms: number): Promise<void> => {
      await clock.advance(ms);
    };
    await pass(2_000);
    expect({ looks, doubts }).toEqual({ looks: 1, doubts: [] });
    seen = sight({ addresses: new Set() });
    isWriting = true;
    await pass(2_000);
    expect({ looks, doubts }).toEqual({ looks: 2, doubts: [] });
    isWriting = false;
    await pass(2_000);
    expect(doubts.splice(0)).toEqual(['ip', 'request']);
    // At once, then after twice the time.
    await pass(2_000);
    expect(doubts.splice(0)).toEqual(['ip', 'request']);
    await pass(2_000);
    expect(doubts).toEqual([]);
    await pass(2_000);
    expect(doubts).toEqual(['ip', 'request']);
    stop.abort();
    await pass(60_000);
    await watching;
  });
});
