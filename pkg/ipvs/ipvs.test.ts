import { describe, expect, it } from 'vitest';
import type { runCommand } from '#pkg/exec/run.ts';
import { observeConnections } from './observe.ts';
import { parseConnections, parseIpvsSave } from './parse.ts';
import { afterPlan, planIpvs } from './plan.ts';
import { renderIpvsRestore, renderVirtualServers } from './render.ts';
import { serverKey, type VirtualServer } from './virtual-server.ts';

const server = (fields: Partial<VirtualServer> = {}, ...reals: string[]): VirtualServer => ({
  family: 'ip',
  protocol: 'tcp',
  address: '10.96.0.1',
  port: 80,
  scheduler: 'rr',
  flags: '',
  persistenceSeconds: 0,
  realServers: reals.map((text) => {
    const [address = '', weight = '1'] = text.split(' ');
    return { address, port: 8080, weight: Number(weight) };
  }),
  ...fields,
});
const byKey = (...servers: VirtualServer[]) => new Map(servers.map((s) => [serverKey(s), s]));
const all: (server: VirtualServer) => boolean = () => true;
const text = (
  want: VirtualServer[],
  have: VirtualServer[],
  isOurs = all,
  mayEmpty: (server: VirtualServer) => boolean = () => false,
) => {
  const { deletions, puts } = planIpvs(byKey(...want), byKey(...have), { isOurs, mayEmpty });
  return { puts: renderIpvsRestore(puts), deletions: renderIpvsRestore(deletions) };
};

describe('planIpvs()', () => {
  it.each([
    ['rr', '', '-s rr'],
    ['wrr', '', '-s wrr'],
    ['lc', '', '-s lc'],
    ['wlc', '', '-s wlc'],
    ['lblc', '', '-s lblc'],
    ['lblcr', '', '-s lblcr'],
    ['sh', 'sh-port', '-s sh -b sh-port'],
    ['dh', '', '-s dh'],
    ['sed', '', '-s sed'],
    ['nq', '', '-s nq'],
    ['mh', 'mh-port', '-s mh -b mh-port'],
  ])('adds a server of scheduler %s', (scheduler, flags, words) => {
    expect(text([server({ scheduler, flags }, '10.1.0.2')], [])).toEqual({
      puts: `-A -t 10.96.0.1:80 ${words}\n-a -t 10.96.0.1:80 -r 10.1.0.2:8080 -m -w 1\n`,
      deletions: '',
    });
  });

  it('changes settings in place, so that connections go on', () => {
    const want = server({ persistenceSeconds: 10_800 }, '10.1.0.2');
    expect(text([want], [server({}, '10.1.0.2')])).toEqual({
      puts: '-E -t 10.96.0.1:80 -s rr -p 10800\n',
      deletions: '',
    });
  });

  it('S137. an endpoint that is leaving gets weight 0, and stays until its connections end', () => {
    const want = server({}, '10.1.0.2');
    expect(text([want], [server({}, '10.1.0.2', '10.1.0.3')])).toEqual({
      puts: '-e -t 10.96.0.1:80 -r 10.1.0.3:8080 -m -w 0\n',
      deletions: '',
    });
    expect(text([want], [server({}, '10.1.0.2', '10.1.0.3 0')])).toEqual({
      puts: '',
      deletions: '',
    });
  });

  it('S137. one of UDP goes at once', () => {
    const udp = { protocol: 'udp' } as const;
    expect(text([server(udp, '10.1.0.2')], [server(udp, '10.1.0.2', '10.1.0.3')])).toEqual({
      puts: '',
      deletions: '-d -u 10.96.0.1:80 -r 10.1.0.3:8080\n',
    });
  });

  it.each([
    ['dh', ''],
    ['sh', 'sh-port'],
    ['mh', ''],
  ])(
    'S137. one of scheduler %s %s, too, which would refuse new connections',
    (scheduler, flags) => {
      const want = server({ scheduler, flags }, '10.1.0.2');
      for (const leaving of ['10.1.0.3', '10.1.0.3 0']) {
        const have = server({ scheduler, flags }, '10.1.0.2', leaving);
        expect(text([want], [have])).toEqual({
          puts: '',
          deletions: '-d -t 10.96.0.1:80 -r 10.1.0.3:8080\n',
        });
        expect(afterPlan(want, have)).toEqual(want);
      }
    },
  );

  it.each([
    ['sh', 'sh-fallback'],
    ['mh', 'mh-fallback,mh-port'],
  ])('S137. one of scheduler %s %s stays', (scheduler, flags) => {
    const want = server({ scheduler, flags }, '10.1.0.2');
    expect(text([want], [server({ scheduler, flags }, '10.1.0.2', '10.1.0.3')])).toEqual({
      puts: '-e -t 10.96.0.1:80 -r 10.1.0.3:8080 -m -w 0\n',
      deletions: '',
    });
  });

  it('S134. S137. one that comes back gets its weight again, also after a restart', () => {
    const want = server({}, '10.1.0.2');
    expect(text([want], [server({}, '10.1.0.2 0')]).puts).toBe(
      '-e -t 10.96.0.1:80 -r 10.1.0.2:8080 -m -w 1\n',
    );
  });

  it('S138. deletes servers nobody wants, but for those of others', () => {
    const theirs = server({ address: '192.0.2.1' });
    const isOurs = ({ address }: VirtualServer): boolean => address !== '192.0.2.1';
    expect(text([], [server(), theirs], isOurs).deletions).toBe('-D -t 10.96.0.1:80\n');
  });

  it('S137. one that has nobody left to lead to stays until its connections end, but for UDP', () => {
    const have = [server({}, '10.1.0.2', '10.1.0.3 0'), server({ protocol: 'udp' }, '10.1.0.2')];
    expect(text([], have, all, all)).toEqual({
      puts: '-e -t 10.96.0.1:80 -r 10.1.0.2:8080 -m -w 0\n',
      deletions: '-D -u 10.96.0.1:80\n',
    });
    const [tcp, udp] = have.map((of) => afterPlan(undefined, of));
    expect(tcp?.realServers.map(({ weight }) => weight)).toEqual([0, 0]);
    expect(udp).toBeUndefined();
    expect(text([], [tcp ?? server()], all, all)).toEqual({ puts: '', deletions: '' });
    expect(text([], [server()], all, all).deletions).toBe('-D -t 10.96.0.1:80\n');
    expect(text([], have, () => false, all)).toEqual({ puts: '', deletions: '' });
  });

  it.each([
    ['-A -t 10.96.0.1:80 -s rr -p 60 -M 255.255.255.0 -o', '-m'],
    ['-A -t 10.96.0.1:80 -s rr -p 60 --pe sip', '-m'],
    ['-A -t 10.96.0.1:80 -s rr -p 60', '-g'],
    ['-A -t 10.96.0.1:80 -s rr -p 60', '-i --tun-type gue --tun-port 6080'],
  ])('takes back what only others ask for: %s, %s', (line, forwarding) => {
    const want = server({ persistenceSeconds: 60 }, '10.1.0.2');
    const real = `-a -t 10.96.0.1:80 -r 10.1.0.2:8080 ${forwarding} -w 1`;
    const have = parseIpvsSave(`${line}\n${real}\n`);
    const steps = renderIpvsRestore(
      planIpvs(byKey(want), have, { isOurs: all, mayEmpty: all }).puts,
    );
    expect(steps).toBe(
      forwarding === '-m'
        ? '-E -t 10.96.0.1:80 -s rr -p 60\n'
        : '-e -t 10.96.0.1:80 -r 10.1.0.2:8080 -m -w 1\n',
    );
  });

  it('has nothing to do after it was done', () => {
    const want = server({}, '10.1.0.2');
    const have = server({}, '10.1.0.2', '10.1.0.3');
    expect(text([want], [afterPlan(want, have)])).toEqual({ puts: '', deletions: '' });
  });
});

it('what is rendered is read back the same', () => {
  const servers = [
    server({ persistenceSeconds: 60 }, '10.1.0.2', '10.1.0.3 0'),
    server({ protocol: 'udp', scheduler: 'mh', flags: 'mh-port' }),
    server({ protocol: 'sctp', port: 9 }, '10.1.0.2'),
    {
      ...server({ family: 'ip6', address: 'fd00:96::1', persistenceSeconds: 60 }),
      realServers: [{ address: 'fd00:10::2', port: 8080, weight: 1 }],
    },
  ];
  const text = renderVirtualServers(servers);
  expect(text).toContain('-A --sctp-service 10.96.0.1:9 -s rr\n');
  expect(text).toContain('-A -t [fd00:96::1]:80 -s rr -p 60\n');
  const read = parseIpvsSave(text);
  for (const wanted of servers) expect(read.get(serverKey(wanted))).toEqual(wanted);
  expect(read.size).toBe(servers.length);
});

it('parseIpvsSave() leaves servers by firewall mark alone', () => {
  expect(parseIpvsSave('-A -f 7 -s rr\n-a -f 7 -r 10.1.0.2:0 -m -w 1\n').size).toBe(0);
});

describe('observeConnections()', () => {
  const proc = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:0050 rr
  -> 0A010003:1F90      Masq    0      3          2
  -> 0A010002:1F90      Masq    1      0          0
TCP  0A600002:0050 rr
  -> 0A010002:1F90      Masq    0      7          0
`;
  const listed = 'TCP  10.96.0.1:80 rr\n  -> 10.1.0.3:8080  Masq  0  3  2\n';

  it.each([
    [1, ['ipvsadm --list --numeric -t 10.96.0.1:80'], { '10.1.0.3:8080': 5 }],
    [9, ['cat /proc/net/ip_vs'], { '10.1.0.3:8080': 5, '10.1.0.2:8080': 0 }],
  ])('of %i virtual servers', async (count, expected, counts) => {
    const calls: string[] = [];
    const run = (async (file: string, args: readonly string[]) => {
      calls.push([file, ...args].join(' '));
      return { stdout: file === 'cat' ? proc : listed, stderr: '' };
    }) as typeof runCommand;
    const others = Array.from({ length: count - 1 }, (_, i) => `-t 10.97.0.${i}:80`);
    const keys = new Set(['-t 10.96.0.1:80', ...others]);
    const found = await observeConnections(run, keys, AbortSignal.timeout(60_000));
    expect(calls).toEqual(expected);
    expect([...found.keys()]).toEqual(['-t 10.96.0.1:80']);
    expect(Object.fromEntries(found.get('-t 10.96.0.1:80') ?? [])).toEqual(counts);
  });
});

it('parseConnections() counts active and inactive ones', () => {
  const listed = [
    'Prot LocalAddress:Port Scheduler Flags',
    '  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn',
    'TCP  10.96.0.1:80 rr',
    '  -> 10.1.0.2:8080                Masq    1      3          4',
    '  -> [fd00:10::2]:8080            Masq    0      0          0',
  ].join('\n');
  expect([...parseConnections(listed)]).toEqual([
    ['10.1.0.2:8080', 7],
    ['[fd00:10::2]:8080', 0],
  ]);
});
