/**
 * The part of BIRD 2's configuration that announces a node's pods and takes in its peers' routes.
 * It has tables of its own, and a pipe that hands peers' routes to the master tables: from there the
 * `protocol kernel` of bird.conf (one to a kernel table, hence not ours) brings them into the kernel,
 * under BIRD's own rtm_protocol (12). Our own range stays behind: in the kernel, an unreachable route
 * of metric 32 would win against that of the pods' bridge.
 */
import { formatAddress, type Address, type Family } from '#pkg/ip/address.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import type { BgpFamily, BgpSession, BgpSpeaker } from './bgp-speaker.ts';

/** By what the file is recognised as ours. */
export const birdConfigTitle = '# Written by podwire-node; what is changed here is lost.';

/** Equal input gives equal text. Families and sessions in the order given. */
export function renderBirdConfig({ asNumber, families }: BgpSpeaker): string {
  return [birdConfigTitle, ...families.flatMap((family) => familyLines(asNumber, family)), ''].join(
    '\n',
  );
}

function familyLines(asNumber: number, bgpFamily: BgpFamily): string[] {
  const { family, podCIDR, local, sessions } = bgpFamily;
  const n = suffixOf(family);
  const channel = `ipv${n}`;
  const own = formatPrefix(podCIDR);
  const everything = family === 'ip' ? '0.0.0.0/0' : '::/0';
  // A reflector hands on what it hears; anybody else announces his own.
  const announced = sessions.some(({ isClient }) => isClient)
    ? 'source = RTS_STATIC || source = RTS_BGP'
    : 'source = RTS_STATIC';
  return [
    '',
    `${channel} table podwire${n};`,
    '',
    `protocol pipe podwire_pipe${n} {`,
    `  table podwire${n};`,
    `  peer table master${n};`,
    '  import none;',
    '  export where source = RTS_BGP;',
    '}',
    '',
    `protocol static podwire_pods${n} {`,
    `  ${channel} { table podwire${n}; };`,
    `  route ${own} unreachable;`,
    '}',
    ...sessions.flatMap((session) => [
      ...(usesOwnNextHops(session) ? nextHopLines(session, bgpFamily) : []),
      '',
      `protocol bgp ${sessionName(session.neighbor)} {`,
      `  local ${formatAddress(local)} as ${asNumber};`,
      `  neighbor ${formatAddress(session.neighbor)} as ${asNumber};`,
      `  ${session.onLink ? 'direct' : 'multihop'};`,
      ...(session.isClient ? ['  rr client;'] : []),
      '  graceful restart on;',
      '  connect delay time 1;',
      '  connect retry time 5;',
      '  error wait time 1, 30;',
      `  ${channel} {`,
      `    table podwire${n};`,
      ...gatewayLines(session, n),
      // Nobody takes our pods, or all traffic, away from us.
      `    import where !(net ~ [ ${own}+ ]) && net != ${everything};`,
      `    export where ${announced};`,
      '  };',
      '}',
    ]),
  ];
}

/** Its next hops are found by tables of ours. */
function usesOwnNextHops({ onLink, isReflector }: BgpSession): boolean {
  return onLink && isReflector;
}

function gatewayLines(session: BgpSession, n: '4' | '6'): string[] {
  if (usesOwnNextHops(session)) {
    return ['    gateway recursive;', `    igp table ${nextHopTable(session)};`];
  }
  // Those of a node on our L2 are its own address. What is farther away only bird.conf can tell.
  return session.onLink
    ? ['    gateway direct;']
    : ['    gateway recursive;', `    igp table master${n};`];
}

/** Next hops on our link are used as they are; for all others the reflector is the way. */
function nextHopLines(session: BgpSession, { family, link }: BgpFamily): string[] {
  const channel = `ipv${suffixOf(family)}`;
  const table = nextHopTable(session);
  const everything = family === 'ip' ? '0.0.0.0/0' : '::/0';
  return [
    '',
    `${channel} table ${table};`,
    '',
    `protocol direct ${table}_direct {`,
    `  ${channel} { table ${table}; };`,
    `  interface "${link}";`,
    '}',
    '',
    `protocol static ${table}_default {`,
    `  ${channel} { table ${table}; };`,
    `  route ${everything} via ${formatAddress(session.neighbor)};`,
    '}',
  ];
}

function nextHopTable({ neighbor }: BgpSession): string {
  return `${sessionName(neighbor)}_hops`;
}

function sessionName(neighbor: Address): string {
  return `podwire_${formatAddress(neighbor).replaceAll(/[.:]/g, '_')}`;
}

function suffixOf(family: Family): '4' | '6' {
  return family === 'ip' ? '4' : '6';
}
