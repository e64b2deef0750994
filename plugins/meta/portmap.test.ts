import { describe, expect, it } from 'vitest';
import { parseNetworkConfig } from '#pkg/cni/config.ts';
import { parseResult } from '#pkg/cni/versions.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { attachmentComment, isOfAttachment, isStale } from './attachment-comment.ts';
import { parseSavedTable } from './iptables-table.ts';
import { parsePortmapConfig, portmapWishes, type PortmapWish } from './portmap-config.ts';
import { chainOwners, missingPorts, planPorts } from './portmap-iptables.ts';

const web = { hostPort: 8080, containerPort: 80, protocol: 'tcp' };

function wishesOf(
  ports: readonly object[],
  ips: readonly object[],
  more = {},
): readonly PortmapWish[] {
  const config = parseNetworkConfig(
    JSON.stringify({ name: 'net', runtimeConfig: { portMappings: ports }, ...more }),
  );
  const interfaces = [
    { name: 'eth0' },
    { name: 'eth0', sandbox: '/ns' },
    { name: 'net1', sandbox: '/ns' },
  ];
  const result = parseResult({ interfaces, ips }, '1.0.0');
  const request = {
    config,
    containerId: 'pod',
    ifName: 'eth0',
    netns: '/ns',
    args: '',
    path: [],
    environment: {},
  };
  return portmapWishes(request, parsePortmapConfig(config), result);
}

describe('portmapWishes()', () => {
  it.each([
    [
      'one of each family',
      [
        { interface: 1, address: '10.0.0.2/24' },
        { interface: 1, address: 'fd00::2/64' },
      ],
      ['10.0.0.2/24', 'fd00::2/64'],
    ],
    [
      'the first of a family',
      [
        { interface: 1, address: '10.0.0.2/24' },
        { interface: 1, address: '10.0.1.2/24' },
      ],
      ['10.0.0.2/24'],
    ],
    [
      'not the host’s, not another interface’s',
      [
        { interface: 0, address: '10.0.0.1/24' },
        { interface: 2, address: '10.0.1.2/24' },
      ],
      [],
    ],
    ['those of no interface', [{ address: '10.0.0.2/24' }], ['10.0.0.2/24']],
  ])('leads to addresses of the container: %s', (_, ips, expected) => {
    expect(wishesOf([web], ips).map(({ target }) => formatPrefix(target))).toEqual(expected);
  });
});

describe('planPorts()', () => {
  const [wish] = wishesOf([web], [{ interface: 1, address: '10.0.0.2/24' }]);
  if (wish === undefined) throw new Error('One address makes one wish');
  /** The table after the lines, which are those of an empty one. */
  const saved = (lines: readonly string[]): string =>
    ['*nat', ':PREROUTING ACCEPT [0:0]', ':OUTPUT ACCEPT [0:0]', ':POSTROUTING ACCEPT [0:0]']
      .concat(
        lines.map((line) =>
          line.replace(/^-I (\S+) 1/, '-A $1').replace(/^-N (\S+)/, ':$1 - [0:0]'),
        ),
      )
      .join('\n');

  it('107. plans nothing but its own rules anew where all is there', () => {
    const lines = planPorts(parseSavedTable(saved([]), 'nat'), wish);
    const table = parseSavedTable(saved(lines), 'nat');
    expect(missingPorts(table, wish)).toBeUndefined();
    const again = planPorts(table, wish);
    expect(again.filter((line) => !line.includes('CNI-DN-'))).toEqual([]);
    expect(again.filter((line) => line.startsWith('-D CNI-HOSTPORT-DNAT'))).toHaveLength(1);
  });

  it('148. knows whose the ports are', () => {
    const table = parseSavedTable(saved(planPorts(parseSavedTable(saved([]), 'nat'), wish)), 'nat');
    expect(chainOwners(table)).toMatchObject([
      {
        network: 'net',
        containerId: 'pod',
        claims: [
          {
            protocol: 'tcp',
            hostPort: 8080,
            hostIp: undefined,
            target: '10.0.0.2',
            conditional: false,
          },
        ],
      },
    ]);
  });

  it.each([
    ['\n-A POSTROUTING -j ACCEPT', /"conditionsV4": expected matches of one rule/],
    ['-s 1.2.3.4; flush ruleset', /"conditionsV4": expected matches of one rule/],
  ])('a condition cannot be more than that: %j', (condition, message) => {
    expect(() => wishesOf([web], [], { conditionsV4: [condition] })).toThrow(message);
  });
});

describe('comments of attachments', () => {
  const pod = { containerId: 'a'.repeat(64), ifName: 'eth0' };
  it.each([
    ['net', pod],
    ['n'.repeat(300), { containerId: 'c'.repeat(300), ifName: 'i'.repeat(15) }],
  ])('fit nft whatever the names, and are found again: %s', (network, attachment) => {
    const text = attachmentComment(network, attachment);
    expect(text.length).toBeLessThanOrEqual(128);
    expect(isOfAttachment(text, attachment)).toBe(true);
    expect(isOfAttachment(text, { ...attachment, ifName: 'net1' })).toBe(false);
    expect(isOfAttachment(text, { ...attachment, containerId: 'other' })).toBe(false);
    expect(isStale(text, network, [])).toBe(true);
    expect(isStale(text, network, [attachment])).toBe(false);
    expect(isStale(text, 'other', [])).toBe(false);
  });

  it('145. a network whose name begins another’s has no part in it', () => {
    expect(isStale(attachmentComment('net-2', pod), 'net', [])).toBe(false);
  });
});
