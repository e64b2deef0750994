/**
 * The fixed rules of ipvs mode: kube-proxy's chains and jumps. Which traffic they mean is in sets, so
 * no Service changes them. Where kube-proxy's let packets through that no endpoint may take, these
 * refuse or drop them as in iptables mode.
 */
import type { Family } from '#pkg/ip/address.ts';
import { comment, formatRule, type RuleParts } from '#pkg/iptables/rule.ts';
import type { Rules, Ruleset } from '#pkg/iptables/ruleset.ts';
import { forwardAccepted } from './iptables-base.ts';
import type { IpvsOptions } from './ipvs-options.ts';
import { setName, type SetId } from './ipvs-sets.ts';
import { localMatch, notLocalMatch } from './local-detector.ts';

const newConnection = '-m conntrack --ctstate NEW';
const fromHost = '-m addrtype --src-type LOCAL';
const markMasquerade = 'KUBE-MARK-MASQ';

/** The fixed rules for these options. */
export function ipvsRuleset(options: IpvsOptions): Ruleset {
  const { family } = options;
  return {
    family,
    tables: [
      { name: 'filter', chains: filterChains(options), jumps: filterJumps() },
      { name: 'nat', chains: natChains(options), jumps: natJumps() },
      { name: 'mangle', chains: new Map([['KUBE-PROXY-CANARY', []]]), jumps: new Map() },
    ],
  };
}

function filterChains(options: IpvsOptions): Map<string, Rules> {
  const { family } = options;
  const mark = markOf(options);
  const pods = localMatch(options.localDetector, family);
  const icmp = family === 'ip' ? 'icmp-port-unreachable' : 'icmp6-port-unreachable';
  const rule = (target: string, set: SetId, flags: string, parts: RuleParts = {}): string =>
    formatRule({
      ...parts,
      matches: [...(parts.matches ?? []), matchSet(family, set, flags)],
      target,
    });
  const isNew = { matches: [newConnection] };
  const refuse = `REJECT --reject-with ${icmp}`;
  const nobody = [
    rule(refuse, 'NO-ENDPOINT', 'dst,dst', isNew),
    rule('DROP', 'NO-LOCAL-IP', 'dst,dst', isNew),
  ];
  // Listeners of the host answer on every address of it, those of Services too.
  const listeners = rule(refuse, 'IPVS-IPS', 'dst', isNew);
  const served: readonly SetId[] = [
    'CLUSTER-IP',
    'EXTERNAL-IP',
    'EXTERNAL-IP-LOCAL',
    'LOAD-BALANCER',
  ];
  return new Map<string, Rules>([
    ['KUBE-PROXY-CANARY', []],
    ['KUBE-FORWARD', forwardAccepted(mark)],
    [
      'KUBE-NODE-PORT',
      [
        rule('ACCEPT', 'HEALTH-CHECK-NODE-PORT', 'dst', {
          matches: [comment('Kubernetes health check node port')],
        }),
      ],
    ],
    ['KUBE-PROXY-FIREWALL', [rule('KUBE-SOURCE-RANGES-FIREWALL', 'LOAD-BALANCER-FW', 'dst,dst')]],
    [
      'KUBE-SOURCE-RANGES-FIREWALL',
      [
        rule('RETURN', 'LOAD-BALANCER-SOURCE-CIDR', 'dst,dst,src'),
        rule('RETURN', 'LOAD-BALANCER-SOURCE-IP', 'dst,dst,src'),
        formatRule({ target: 'DROP' }),
      ],
    ],
    [
      'KUBE-IPVS-FILTER',
      [
        ...nobody,
        ...(pods === undefined
          ? []
          : [rule('RETURN', 'NO-LOCAL-EXTERNAL', 'dst,dst', { ...pods, ...isNew })]),
        rule('DROP', 'NO-LOCAL-EXTERNAL', 'dst,dst', isNew),
        ...served.map((set) => rule('RETURN', set, 'dst,dst')),
        // A load balancer that leaves its address in packets asks there, too.
        rule('RETURN', 'HEALTH-CHECK-NODE-PORT', 'dst', { protocol: 'tcp' }),
        listeners,
      ],
    ],
    ['KUBE-IPVS-OUT-FILTER', [...nobody, listeners]],
  ]);
}

function filterJumps(): Map<string, Rules> {
  const firewall = jump('KUBE-PROXY-FIREWALL', 'kubernetes load balancer firewall');
  return new Map([
    [
      'INPUT',
      [
        jump('KUBE-IPVS-FILTER', 'kubernetes ipvs access filter'),
        firewall,
        jump('KUBE-NODE-PORT', 'kubernetes health check rules'),
      ],
    ],
    ['FORWARD', [firewall, jump('KUBE-FORWARD', 'kubernetes forwarding rules')]],
    ['OUTPUT', [jump('KUBE-IPVS-OUT-FILTER', 'kubernetes ipvs access filter')]],
  ]);
}

function natChains(options: IpvsOptions): Map<string, Rules> {
  const mark = markOf(options);
  const { family, randomFully } = options;
  const masquerade = randomFully ? 'MASQUERADE --random-fully' : 'MASQUERADE';
  const set = (id: SetId, flags: string): string => matchSet(family, id, flags);
  return new Map<string, Rules>([
    ['KUBE-PROXY-CANARY', []],
    [markMasquerade, [formatRule({ target: `MARK --set-xmark ${mark}/${mark}` })]],
    ['KUBE-SERVICES', servicesChain(options)],
    [
      'KUBE-LOAD-BALANCER',
      [
        formatRule({
          matches: [set('LOAD-BALANCER-LOCAL', 'dst,dst'), fromHost],
          target: markMasquerade,
        }),
        formatRule({ matches: [set('LOAD-BALANCER-LOCAL', 'dst,dst')], target: 'RETURN' }),
        formatRule({ target: markMasquerade }),
      ],
    ],
    ['KUBE-NODE-PORT', nodePortChain(family)],
    [
      'KUBE-POSTROUTING',
      [
        formatRule({
          matches: [
            comment('Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose'),
            set('LOOP-BACK', 'dst,dst,src'),
          ],
          target: 'MASQUERADE',
        }),
        formatRule({ matches: [`-m mark ! --mark ${mark}/${mark}`], target: 'RETURN' }),
        // The packet may pass here again, in a tunnel: it must not be masqueraded twice.
        formatRule({ target: `MARK --set-xmark ${mark}/0x0` }),
        formatRule({
          matches: [comment('kubernetes service traffic requiring SNAT')],
          target: masquerade,
        }),
      ],
    ],
  ]);
}

function servicesChain(options: IpvsOptions): Rules {
  const { family } = options;
  const set = (id: SetId, flags = 'dst,dst'): string => matchSet(family, id, flags);
  const mark = (id: SetId, text: string): string =>
    formatRule({ matches: [comment(text), set(id)], target: markMasquerade });
  return [
    // Node ports are not served on loopback addresses in this mode.
    formatRule({ source: family === 'ip' ? '127.0.0.0/8' : '::1/128', target: 'RETURN' }),
    masqueradeClusterIP(options),
    mark('EXTERNAL-IP', 'Kubernetes service external ip + port for masquerade and filter purpose'),
    formatRule({ matches: [set('EXTERNAL-IP-LOCAL'), fromHost], target: markMasquerade }),
    formatRule({
      matches: [comment('Kubernetes service lb portal'), set('LOAD-BALANCER')],
      target: 'KUBE-LOAD-BALANCER',
    }),
    // Nobody else's rules translate what IPVS will; nor is it a node port, if it has such a number.
    ...(['CLUSTER-IP', 'EXTERNAL-IP', 'EXTERNAL-IP-LOCAL', 'LOAD-BALANCER'] as const).map((id) =>
      formatRule({ matches: [set(id)], target: 'ACCEPT' }),
    ),
    formatRule({ matches: ['-m addrtype --dst-type LOCAL'], target: 'KUBE-NODE-PORT' }),
  ];
}

/**
 * The host's own packets have the Service's address as their source, since that is an address of the
 * host: with nothing to tell pods by, they are told by that.
 */
function masqueradeClusterIP(options: IpvsOptions): string {
  const { family } = options;
  const notLocal = options.masqueradeAll ? {} : notLocalMatch(options.localDetector, family);
  const flags = notLocal === undefined ? 'src,dst' : 'dst,dst';
  const text = 'Kubernetes service cluster ip + port for masquerade purpose';
  return formatRule({
    ...notLocal,
    matches: [comment(text), matchSet(family, 'CLUSTER-IP', flags)],
    target: markMasquerade,
  });
}

function nodePortChain(family: Family): Rules {
  return (['tcp', 'udp', 'sctp'] as const).flatMap((protocol) => {
    const hash = protocol === 'sctp' ? '-HASH' : '';
    const flags = protocol === 'sctp' ? 'dst,dst' : 'dst';
    const upper = protocol.toUpperCase() as 'TCP' | 'UDP' | 'SCTP';
    const local = matchSet(family, `NODE-PORT-LOCAL-${upper}${hash}` as SetId, flags);
    const all = matchSet(family, `NODE-PORT-${upper}${hash}` as SetId, flags);
    return [
      formatRule({ protocol, matches: [local, fromHost], target: markMasquerade }),
      formatRule({ protocol, matches: [local], target: 'RETURN' }),
      formatRule({ protocol, matches: [all], target: markMasquerade }),
    ];
  });
}

function natJumps(): Map<string, Rules> {
  const services = [jump('KUBE-SERVICES', 'kubernetes service portals')];
  return new Map([
    ['PREROUTING', services],
    ['OUTPUT', services],
    ['POSTROUTING', [jump('KUBE-POSTROUTING', 'kubernetes postrouting rules')]],
  ]);
}

function jump(target: string, text: string): string {
  return formatRule({ matches: [comment(text)], target });
}

function matchSet(family: Family, set: SetId, flags: string): string {
  return `-m set --match-set ${setName(set, family)} ${flags}`;
}

function markOf({ masqueradeBit }: IpvsOptions): string {
  return `0x${(2 ** masqueradeBit).toString(16)}`;
}
