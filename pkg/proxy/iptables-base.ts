/** The chains kube-proxy has on every node, whatever the Services, and the jumps into them. */
import { parseAddress } from '#pkg/ip/address.ts';
import { formatPrefix, hostPrefix } from '#pkg/ip/prefix.ts';
import { comment, formatRule } from '#pkg/iptables/rule.ts';
import type { Rules } from '#pkg/iptables/ruleset.ts';
import { masqueradeMark, servesLocalhost, type IptablesOptions } from './iptables-options.ts';

export const chains = {
  services: 'KUBE-SERVICES',
  externalServices: 'KUBE-EXTERNAL-SERVICES',
  nodePorts: 'KUBE-NODEPORTS',
  proxyFirewall: 'KUBE-PROXY-FIREWALL',
  forward: 'KUBE-FORWARD',
  postrouting: 'KUBE-POSTROUTING',
  markMasquerade: 'KUBE-MARK-MASQ',
  firewall: 'KUBE-FIREWALL',
  canary: 'KUBE-PROXY-CANARY',
} as const;

/** All of it for one set of options. */
export interface BaseRules {
  readonly filter: readonly (readonly [string, Rules])[];
  readonly nat: readonly (readonly [string, Rules])[];
  readonly mangle: readonly (readonly [string, Rules])[];
  readonly filterJumps: ReadonlyMap<string, Rules>;
  readonly natJumps: ReadonlyMap<string, Rules>;
  /** What stands last in nat's KUBE-SERVICES. */
  readonly servicesEnd: Rules;
}

/** The fixed chains and jumps for these options. */
export function baseRules(options: IptablesOptions): BaseRules {
  return {
    filter: filterBaseChains(options),
    nat: natBaseChains(options),
    mangle: [[chains.canary, []]],
    filterJumps: filterJumps(options),
    natJumps: natJumps(),
    servicesEnd: nodePortJumps(options),
  };
}

const newConnection = '-m conntrack --ctstate NEW';

/** What is forwarded where the host's policy is to drop: packets with the mark, and replies. */
export function forwardAccepted(mark: string): Rules {
  return [
    formatRule({
      matches: [comment('kubernetes forwarding rules'), `-m mark --mark ${mark}/${mark}`],
      target: 'ACCEPT',
    }),
    formatRule({
      matches: [
        comment('kubernetes forwarding conntrack rule'),
        '-m conntrack --ctstate RELATED,ESTABLISHED',
      ],
      target: 'ACCEPT',
    }),
  ];
}

/** filter: what our packets need to pass, and the guard of 127.0.0.0/8. */
function filterBaseChains(options: IptablesOptions): [string, Rules][] {
  const mark = masqueradeMark(options);
  // A packet out of its connection's window is not translated; as a stray it would reset the
  // client's connection (kubernetes/kubernetes#74839).
  const dropInvalid = options.conntrackLiberal
    ? []
    : [formatRule({ matches: ['-m conntrack --ctstate INVALID'], target: 'DROP' })];
  const forward = [...dropInvalid, ...forwardAccepted(mark)];
  return [
    [chains.canary, []],
    [chains.forward, forward],
    ...(servesLocalhost(options) ? localnetGuard() : []),
  ];
}

/** nat: marking, and masquerading what is marked. */
function natBaseChains(options: IptablesOptions): [string, Rules][] {
  const mark = masqueradeMark(options);
  return [
    [chains.canary, []],
    [chains.markMasquerade, [formatRule({ target: `MARK --set-xmark ${mark}/${mark}` })]],
    [
      chains.postrouting,
      [
        formatRule({ matches: [`-m mark ! --mark ${mark}/${mark}`], target: 'RETURN' }),
        // The packet may pass here again, in a tunnel: it must not be masqueraded twice.
        formatRule({ target: `MARK --set-xmark ${mark}/0x0` }),
        formatRule({
          matches: [comment('kubernetes service traffic requiring SNAT')],
          target: options.randomFully ? 'MASQUERADE --random-fully' : 'MASQUERADE',
        }),
      ],
    ],
  ];
}

/** Jumps in filter's built-in chains, in the order they stand in. */
function filterJumps(options: IptablesOptions): Map<string, Rules> {
  const guard = servesLocalhost(options) ? [formatRule({ target: chains.firewall })] : [];
  const firewall = jump(chains.proxyFirewall, 'kubernetes load balancer firewall', true);
  const services = jump(chains.services, 'kubernetes service portals', true);
  const forward = jump(chains.forward, 'kubernetes forwarding rules', false);
  const nodePorts = jump(chains.nodePorts, 'kubernetes health check service ports', false);
  const external = jump(
    chains.externalServices,
    'kubernetes externally-visible service portals',
    true,
  );
  return new Map([
    ['INPUT', [...guard, firewall, nodePorts, external]],
    ['FORWARD', [firewall, forward, services, external]],
    ['OUTPUT', [...guard, firewall, services]],
  ]);
}

/** Jumps in nat's built-in chains. */
function natJumps(): Map<string, Rules> {
  const services = [jump(chains.services, 'kubernetes service portals', false)];
  return new Map([
    ['PREROUTING', services],
    ['OUTPUT', services],
    ['POSTROUTING', [jump(chains.postrouting, 'kubernetes postrouting rules', false)]],
  ]);
}

/**
 * The end of nat's KUBE-SERVICES. Node ports come last: an address of the host that is also a
 * Service's belongs to the Service.
 */
function nodePortJumps(options: IptablesOptions): string[] {
  const last = comment(
    'kubernetes service nodeports; NOTE: this must be the last rule in this chain',
  );
  const target = chains.nodePorts;
  if (options.nodePortAddresses !== 'all') {
    return options.nodePortAddresses
      .filter((address) => !isLoopback(address) || servesLocalhost(options))
      .map((address) => formatPrefix(hostPrefix(parseAddress(address))))
      .map((destination) => formatRule({ destination, matches: [last], target }));
  }
  const loopback = options.family === 'ip' ? '127.0.0.0/8' : '::1/128';
  const except = servesLocalhost(options) ? {} : { destination: `! ${loopback}` };
  return [formatRule({ ...except, matches: [last, '-m addrtype --dst-type LOCAL'], target })];
}

function jump(target: string, text: string, onlyNew: boolean): string {
  return formatRule({ matches: [...(onlyNew ? [newConnection] : []), comment(text)], target });
}

/**
 * route_localnet, which node ports on 127.0.0.1 need, would let neighbours send to this node's
 * loopback addresses (CVE-2020-8558). The kubelet keeps the same rule in the same chain.
 */
function localnetGuard(): [string, Rules][] {
  const rule = formatRule({
    source: '! 127.0.0.0/8',
    destination: '127.0.0.0/8',
    matches: [
      comment('block incoming localnet connections'),
      '-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT',
    ],
    target: 'DROP',
  });
  return [[chains.firewall, [rule]]];
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}
