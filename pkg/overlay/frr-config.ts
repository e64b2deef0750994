/**
 * What FRR's bgpd is told to announce a node's pods and to take in its peers' routes. bgpd hands
 * these to zebra, which brings them into the kernel under its own rtm_protocol (186) and finds next
 * hops by whatever routes it knows.
 */
import type { FrrGroup, FrrLine, FrrNeighbor, FrrNetwork, FrrSpeaker } from '#pkg/frr/config.ts';
import { addressBits, formatAddress } from '#pkg/ip/address.ts';
import {
  defaultPrefix,
  familyOf,
  formatPrefix,
  networkOf,
  parsePrefix,
  prefixesOverlap,
  type Prefix,
} from '#pkg/ip/prefix.ts';
import type { BgpFamily, BgpSession, BgpSpeaker } from './bgp-speaker.ts';

/** By what our network statements are known. */
const podsMap = 'PODWIRE-PODS';

/** Inside this bgpd only (it is not announced): a route that one of our neighbours has told. */
const heardTag = 1960;

/** Equal input gives equal output. Families and sessions in the order given. */
export function frrSpeaker({ asNumber, identifier, families }: BgpSpeaker): FrrSpeaker {
  const groups: FrrGroup[] = [];
  const neighbors: FrrNeighbor[] = [];
  for (const family of families) {
    for (const session of family.sessions) {
      const group = groupOf(session, asNumber, family);
      neighbors.push({ address: formatAddress(session.neighbor), group: group.name });
      if (!groups.some(({ name }) => name === group.name)) groups.push(group);
    }
  }
  return {
    asNumber,
    routerId: formatAddress(identifier),
    filters: [header(`route-map ${podsMap} permit 10`), ...families.flatMap(filtersOf)],
    groups,
    neighbors,
    networks: families.map(networkOfPods),
  };
}

function networkOfPods({ family, podCIDR }: BgpFamily): FrrNetwork {
  return { family, prefix: formatPrefix(networkOf(podCIDR)), routeMap: podsMap };
}

/** What the neighbours of a group are to us. */
function roleOf(session: BgpSession): '' | '-CLIENTS' | '-REFLECTORS' {
  if (session.isClient) return '-CLIENTS';
  return isWayOut(session) ? '-REFLECTORS' : '';
}

/** The way to next hops that are not on our link. What a router leads to only FRR can know. */
function isWayOut({ onLink, isReflector }: BgpSession): boolean {
  return onLink && isReflector;
}

function groupOf(session: BgpSession, asNumber: number, bgpFamily: BgpFamily): FrrGroup {
  const { family, local } = bgpFamily;
  const n = suffixOf(bgpFamily);
  return {
    name: `PODWIRE-${n}${roleOf(session)}`,
    family,
    settings: [
      `remote-as ${asNumber}`,
      `update-source ${formatAddress(local)}`,
      'timers connect 5',
    ],
    familySettings: [
      ...(session.isClient ? ['route-reflector-client'] : []),
      `route-map PODWIRE-IN-${n}${isWayOut(session) ? '-REFLECTED' : ''} in`,
      `route-map PODWIRE-OUT-${n} out`,
    ],
  };
}

/** What is heard from our neighbours, and what they hear: nothing of what else this bgpd knows. */
function filtersOf(bgpFamily: BgpFamily): FrrLine[] {
  const { family, podCIDR, sessions } = bgpFamily;
  const n = suffixOf(bgpFamily);
  const ip = family === 'ip' ? 'ip' : 'ipv6';
  const own = formatPrefix(networkOf(podCIDR));
  const everything = formatPrefix(defaultPrefix(family));
  const pods = `match ${ip} address prefix-list PODWIRE-IN-${n}`;
  const accepted = [
    // The link-local address beside it says nothing about a node that is not on our L2.
    ...(family === 'ip' ? [] : ['set ipv6 next-hop prefer-global']),
    `set tag ${heardTag}`,
  ];
  const reflected = `route-map PODWIRE-IN-${n}-REFLECTED permit`;
  return [
    header(`${ip} prefix-list PODWIRE-OWN-${n} seq 5 permit ${own}`),
    // Nobody takes our pods, or all traffic, away from us.
    header(`${ip} prefix-list PODWIRE-IN-${n} seq 5 deny ${within(podCIDR)}`),
    header(`${ip} prefix-list PODWIRE-IN-${n} seq 10 deny ${everything}`),
    header(`${ip} prefix-list PODWIRE-IN-${n} seq 15 permit any`),
    ...(sessions.some((session) => !isWayOut(session))
      ? block(`route-map PODWIRE-IN-${n} permit 10`, [pods, ...accepted])
      : []),
    // Next hops on our link are used as they are; for all others the reflector is the way.
    ...(sessions.some(isWayOut)
      ? [
          ...linkLines(bgpFamily).map((line) =>
            header(`${ip} prefix-list PODWIRE-LINK-${n} ${line}`),
          ),
          ...block(`${reflected} 10`, [
            pods,
            `match ${ip} next-hop prefix-list PODWIRE-LINK-${n}`,
            ...accepted,
          ]),
          ...block(`${reflected} 20`, [pods, `set ${ip} next-hop peer-address`, ...accepted]),
        ]
      : []),
    ...block(`route-map PODWIRE-OUT-${n} permit 10`, [
      `match ${ip} address prefix-list PODWIRE-OWN-${n}`,
    ]),
    // A reflector hands on what it hears; anybody else announces his own.
    ...(sessions.some(({ isClient }) => isClient)
      ? block(`route-map PODWIRE-OUT-${n} permit 20`, [`match tag ${heardTag}`])
      : []),
  ];
}

const linkLocal = parsePrefix('fe80::/10');

/** Of a prefix list: what is on our link. The first that matches counts, hence the longest. */
function linkLines({ onLinkPrefixes, routedPrefixes }: BgpFamily): string[] {
  return (
    [
      ...routedPrefixes.map((prefix) => ({ prefix, action: 'deny' })),
      ...onLinkPrefixes.map((prefix) => ({ prefix, action: 'permit' })),
    ]
      // The link-local address beside a next hop counts as one, too, and that is on every link.
      .filter(({ prefix }) => !prefixesOverlap(prefix, linkLocal))
      .toSorted((a, b) => b.prefix.length - a.prefix.length)
      .map(({ prefix, action }, i) => `seq ${5 * (i + 1)} ${action} ${within(prefix)}`)
  );
}

/** In a prefix list: all within, and itself. */
function within(prefix: Prefix): string {
  const bits = addressBits(familyOf(prefix));
  const text = formatPrefix(networkOf(prefix));
  return prefix.length === bits ? text : `${text} le ${bits}`;
}

function block(first: string, lines: readonly string[]): FrrLine[] {
  return [header(first), ...lines.map((text) => ({ block: first, text }))];
}

/** A line of its own, or the first of a block. */
function header(text: string): FrrLine {
  return { block: '', text };
}

function suffixOf({ family }: BgpFamily): '4' | '6' {
  return family === 'ip' ? '4' : '6';
}
