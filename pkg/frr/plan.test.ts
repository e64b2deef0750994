import { describe, expect, test } from 'vitest';
import { parseFrrConfig, type FrrConfig, type FrrSpeaker } from './config.ts';
import { planFrr } from './plan.ts';

const want: FrrSpeaker = {
  asNumber: 64_512,
  routerId: '192.168.1.1',
  filters: [
    { block: '', text: 'ip prefix-list PODWIRE-OWN-4 seq 5 permit 10.244.1.0/24' },
    { block: '', text: 'route-map PODWIRE-PODS permit 10' },
    { block: '', text: 'route-map PODWIRE-OUT-4 permit 10' },
    {
      block: 'route-map PODWIRE-OUT-4 permit 10',
      text: 'match ip address prefix-list PODWIRE-OWN-4',
    },
  ],
  groups: [
    {
      name: 'PODWIRE-4',
      family: 'ip',
      settings: ['remote-as 64512', 'update-source 192.168.1.1'],
      familySettings: ['route-map PODWIRE-OUT-4 out'],
    },
    {
      name: 'PODWIRE-6',
      family: 'ip6',
      settings: ['remote-as 64512', 'update-source fd00:1::1'],
      familySettings: [],
    },
  ],
  neighbors: [
    { address: '192.168.1.2', group: 'PODWIRE-4' },
    { address: 'fd00:1::2', group: 'PODWIRE-6' },
  ],
  networks: [{ family: 'ip', prefix: '10.244.1.0/24', routeMap: 'PODWIRE-PODS' }],
};

/** Of somebody else, in our AS. */
const foreign = `hostname a
router bgp 64512
 bgp router-id 9.9.9.9
 bgp graceful-restart preserve-fw-state
 neighbor UPSTREAM peer-group
 neighbor 10.0.0.1 remote-as 65000
 !
 address-family ipv4 unicast
  network 172.16.0.0/12
  neighbor 10.0.0.1 route-map TO-THEM out
 exit-address-family
exit
ip prefix-list THEIRS seq 5 permit 10.0.0.0/8
route-map TO-THEM permit 10
 match ip address prefix-list THEIRS
exit
`;
const nothing = 'hostname a\n';

/** What bgpd's configuration is after these commands: as much of FRR as they need. */
function give(text: string, commands: readonly string[]): string {
  const top: { head: string; lines: string[] }[] = [];
  for (const { block, text: line } of parseFrrConfig(text).lines) {
    if (block === '') top.push({ head: line, lines: [] });
    else top.at(-1)?.lines.push(`${block.startsWith('router ipv') ? block.slice(7) : ''}|${line}`);
  }
  let at: (typeof top)[number] | undefined;
  let family = '';
  for (const command of commands) {
    const bare = command.replace(/^no /, '');
    const isBlock = /^(?:route-map|router) /.test(bare);
    if (command === 'exit' && family !== '') family = '';
    else if (command === 'exit') at = undefined;
    else if (command.startsWith('address-family ')) family = command.split(' ')[1] ?? '';
    else if (at === undefined || isBlock) {
      const i = top.findIndex(({ head }) => head === bare);
      if (command !== bare) {
        if (i === -1) throw new Error(`FRR does not know "${bare}"`);
        top.splice(i, 1);
        continue;
      }
      if (i === -1) top.push({ head: command, lines: [] });
      if (isBlock) at = top.find(({ head }) => head === command);
    } else {
      const name = /^no neighbor (\S+)(?: peer-group)?$/.exec(command)?.[1];
      const key = `${family}|${bare}`;
      const before = at.lines.length;
      if (name !== undefined)
        at.lines = at.lines.filter((l) => !`${l} `.includes(`neighbor ${name} `));
      else at.lines = at.lines.filter((l) => l !== key && l !== `${family}|no ${bare}`);
      if (bare.startsWith('bgp router-id ')) {
        at.lines = at.lines.filter((l) => !l.startsWith('|bgp router-id '));
      }
      const isRemoval = before > at.lines.length && (name !== undefined || command !== bare);
      if (!isRemoval && name === undefined) at.lines.push(`${family}|${command}`);
    }
  }
  return top
    .flatMap(({ head, lines }) => [
      head,
      ...lines.flatMap((line) => {
        const [of = '', said = ''] = line.split('|');
        return of === ''
          ? [` ${said}`]
          : [` address-family ${of} unicast`, `  ${said}`, ' exit-address-family'];
      }),
    ])
    .join('\n');
}

const plan = (speaker: FrrSpeaker | undefined, text: string) =>
  planFrr(speaker, parseFrrConfig(text));
const after = (speaker: FrrSpeaker | undefined, text: string): string =>
  give(text, plan(speaker, text).commands);
const sorted = ({ lines }: FrrConfig): string[] =>
  lines.map(({ block, text }) => `${block} | ${text}`).toSorted();

describe('planFrr()', () => {
  test('golden: an FRR that speaks no BGP', () => {
    expect(plan(want, nothing)).toEqual({
      problems: [],
      commands: [
        'ip prefix-list PODWIRE-OWN-4 seq 5 permit 10.244.1.0/24',
        'route-map PODWIRE-PODS permit 10',
        'exit',
        'route-map PODWIRE-OUT-4 permit 10',
        'match ip address prefix-list PODWIRE-OWN-4',
        'exit',
        'router bgp 64512',
        'bgp router-id 192.168.1.1',
        'bgp graceful-restart preserve-fw-state',
        'no bgp network import-check',
        'neighbor PODWIRE-4 peer-group',
        'neighbor PODWIRE-4 remote-as 64512',
        'neighbor PODWIRE-4 update-source 192.168.1.1',
        'neighbor PODWIRE-6 peer-group',
        'neighbor PODWIRE-6 remote-as 64512',
        'neighbor PODWIRE-6 update-source fd00:1::1',
        'address-family ipv4 unicast',
        'network 10.244.1.0/24 route-map PODWIRE-PODS',
        'neighbor PODWIRE-4 route-map PODWIRE-OUT-4 out',
        'no neighbor PODWIRE-6 activate',
        'exit',
        'address-family ipv6 unicast',
        'neighbor PODWIRE-6 activate',
        'exit',
        'neighbor 192.168.1.2 peer-group PODWIRE-4',
        'neighbor 192.168.1.2 graceful-restart',
        'neighbor fd00:1::2 peer-group PODWIRE-6',
        'neighbor fd00:1::2 graceful-restart',
        'exit',
      ],
    });
  });

  const none = want.neighbors.slice(0, 0);
  const moved: FrrSpeaker = {
    ...want,
    filters: want.filters.map((line) => ({
      ...line,
      text: line.text.replace('10.244.1.0', '10.244.9.0'),
    })),
    networks: [{ family: 'ip', prefix: '10.244.9.0/24', routeMap: 'PODWIRE-PODS' }],
    groups: want.groups.slice(0, 1).map((group) => ({
      ...group,
      settings: ['remote-as 64512', 'update-source 192.168.1.77'],
    })),
    neighbors: want.neighbors.slice(0, 1),
  };
  const noIp4 = foreign.replace(' nei', ' no bgp default ipv4-unicast\n nei');
  const alsoIp6 = foreign.replace(' nei', ' bgp default ipv6-unicast\n nei');
  const clients: FrrSpeaker = {
    ...want,
    groups: [
      ...want.groups,
      { name: 'PODWIRE-4-CLIENTS', family: 'ip', settings: [], familySettings: [] },
    ],
    neighbors: [{ address: '192.168.1.2', group: 'PODWIRE-4-CLIENTS' }],
  };
  test.each([
    ['nothing', want, nothing, undefined],
    ['somebody else’s instance', want, foreign, undefined],
    ['one without IPv4 by default', want, noIp4, undefined],
    ['one with IPv6 by default', want, alsoIp6, undefined],
    ['ours, and a neighbour less', { ...want, neighbors: none }, nothing, want],
    ['ours, and other addresses', moved, nothing, want],
    ['ours beside somebody else’s, and other addresses', moved, foreign, want],
    ['ours, of another AS', { ...want, asNumber: 64_513 }, nothing, want],
    ['ours, of another identifier', { ...want, routerId: '10.0.0.1' }, nothing, want],
    ['ours, and a neighbour that changes groups', clients, foreign, want],
  ])('the law: no commands are left after those from %s', (_, speaker, base, former) => {
    const text = former === undefined ? base : after(former, base);
    const first = plan(speaker, text);
    expect(first.commands).not.toEqual([]);
    const reached = give(text, first.commands);
    expect(plan(speaker, reached).commands).toEqual([]);
    // Nor is there a line too many.
    expect(sorted(parseFrrConfig(reached))).toEqual(sorted(parseFrrConfig(after(speaker, base))));
  });

  test.each([
    [
      'IPv4 by default',
      foreign,
      ['no neighbor PODWIRE-6 activate'],
      ['neighbor PODWIRE-6 activate'],
    ],
    ['no family', noIp4, ['neighbor PODWIRE-4 activate'], ['neighbor PODWIRE-6 activate']],
    ['both', alsoIp6, ['no neighbor PODWIRE-6 activate'], ['no neighbor PODWIRE-4 activate']],
  ])('a group is of one family, where neighbours have %s', (_, text, ip, ip6) => {
    const { lines } = parseFrrConfig(after(want, text));
    const said = (name: string): string[] =>
      lines.flatMap((line) =>
        line.block === name && line.text.endsWith(' activate') ? [line.text] : [],
      );
    expect([said('router ipv4'), said('router ipv6')]).toEqual([ip, ip6]);
  });

  test('golden: ours leaves somebody else’s instance', () => {
    expect(plan(undefined, after(want, foreign)).commands).toEqual([
      'router bgp 64512',
      'no neighbor 192.168.1.2',
      'no neighbor fd00:1::2',
      'address-family ipv4 unicast',
      'no network 10.244.1.0/24 route-map PODWIRE-PODS',
      'exit',
      'no neighbor PODWIRE-4 peer-group',
      'no neighbor PODWIRE-6 peer-group',
      'exit',
      'no route-map PODWIRE-PODS permit 10',
      'no route-map PODWIRE-OUT-4 permit 10',
      'no ip prefix-list PODWIRE-OWN-4 seq 5 permit 10.244.1.0/24',
    ]);
  });

  test('golden: our own instance goes, not without a word to each neighbour', () => {
    expect(plan(undefined, after(want, nothing)).commands.slice(0, 5)).toEqual([
      'router bgp 64512',
      'no neighbor 192.168.1.2',
      'no neighbor fd00:1::2',
      'exit',
      'no router bgp 64512',
    ]);
  });

  test('what somebody changed of ours is changed back', () => {
    const have = after(want, foreign)
      .replace('  neighbor PODWIRE-4 route-map', '  no neighbor PODWIRE-4 activate\n$&')
      .replace(' match ip address prefix-list PODWIRE-OWN-4', '$&\n match tag 7');
    expect(plan(want, have).commands).toEqual([
      'router bgp 64512',
      'address-family ipv4 unicast',
      'neighbor PODWIRE-4 activate',
      'exit',
      'exit',
      'route-map PODWIRE-OUT-4 permit 10',
      'no match tag 7',
      'exit',
    ]);
  });

  test('a node that joins or leaves is the lines of that neighbour', () => {
    const have = after(want, foreign);
    const three = [...want.neighbors, { address: '192.168.1.3', group: 'PODWIRE-4' }];
    expect(plan({ ...want, neighbors: three }, have).commands).toEqual([
      'router bgp 64512',
      'neighbor 192.168.1.3 peer-group PODWIRE-4',
      'neighbor 192.168.1.3 graceful-restart',
      'exit',
    ]);
    expect(plan({ ...want, neighbors: want.neighbors.slice(1) }, have).commands).toEqual([
      'router bgp 64512',
      'no neighbor 192.168.1.2',
      'exit',
    ]);
  });

  test('what somebody took away comes back', () => {
    const have = after(want, foreign).replace(/^ .*network 10\.244.*\n/m, '');
    expect(plan(want, have).commands).toEqual([
      'router bgp 64512',
      'address-family ipv4 unicast',
      'network 10.244.1.0/24 route-map PODWIRE-PODS',
      'exit',
      'exit',
    ]);
  });

  test.each([
    ['what was there', foreign],
    ['nothing', nothing],
    ['an instance that was empty', 'router bgp 64512\nexit\n'],
  ])('nothing wanted leaves %s', (_, text) => {
    const have = after(want, text);
    expect(have).not.toBe(text);
    expect(sorted(parseFrrConfig(after(undefined, have)))).toEqual(sorted(parseFrrConfig(text)));
    expect(plan(undefined, text).commands).toEqual([]);
  });

  test('what somebody added to ours stays, and so does the instance', () => {
    const have = after(want, nothing).replace(
      ' neighbor 192.168.1.2 graceful-restart',
      '$&\n neighbor 192.168.1.2 description mine',
    );
    expect(plan(want, have).commands).toEqual([]);
    const instance = after(want, nothing).replace(' neighbor', ' timers bgp 1 3\n neighbor');
    expect(after(undefined, instance)).toContain('router bgp 64512\n');
  });

  test.each([
    'router bgp 64512\n neighbor 10.0.0.1 remote-as 65000\nexit\n',
    // Of another address family.
    `${after(want, nothing).replace('\n neighbor', '\n address-family l2vpn evpn\n  advertise-all-vni\n exit-address-family\n neighbor')}`,
  ])('somebody else’s instance in another AS is refused', (text) => {
    expect(() => plan({ ...want, asNumber: 64_999 }, text)).toThrow(
      'Cannot announce pods: FRR is "router bgp 64512" for others too, and bgp.asNumber is 64999',
    );
    expect(plan(undefined, nothing).commands).toEqual([]);
  });

  test('somebody else’s neighbour is left as it is, and named', () => {
    const neighbors = [...want.neighbors, { address: '10.0.0.1', group: 'PODWIRE-4' }];
    const { commands, problems } = plan({ ...want, neighbors }, foreign);
    expect(commands.join('\n')).not.toContain('10.0.0.1');
    expect(problems).toEqual([
      'Cannot speak BGP with 10.0.0.1: FRR has a neighbor of this address that is not ours',
    ]);
  });

  test('somebody else’s instance that would cut pods off when it is started again is named', () => {
    const text = foreign.replace(/ .*preserve-fw-state\n/, '');
    expect(plan(want, text).problems).toEqual([
      'When FRR is started again peers lose their way to our pods: its "router bgp 64512" lacks "bgp graceful-restart preserve-fw-state"',
    ]);
    expect(plan(want, foreign).problems).toEqual([]);
  });

  test('somebody else’s statement for our pods does as well', () => {
    const text = foreign.replace('172.16.0.0/12', '10.244.1.0/24');
    const { commands } = plan(want, text);
    expect(commands.join('\n')).not.toContain('network 10.244.1.0/24');
    expect(after(undefined, after(want, text))).toContain('network 10.244.1.0/24');
  });
});
