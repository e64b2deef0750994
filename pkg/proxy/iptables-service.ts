/** The rules of one Service port: its entries in the shared chains, and its own chains. */
import { formatPrefix, hostPrefix, containsAddress } from '#pkg/ip/prefix.ts';
import { parseAddress } from '#pkg/ip/address.ts';
import { comment, formatRule, protocolMatch, type RuleParts } from '#pkg/iptables/rule.ts';
import type { Rules } from '#pkg/iptables/ruleset.ts';
import type { AddressRule } from './address-tree.ts';
import { endpointChainName, serviceChainNames, type ServiceChainNames } from './chain-names.ts';
import { chains } from './iptables-base.ts';
import { endpointChain, policyChain } from './iptables-endpoints.ts';
import type { IptablesOptions } from './iptables-options.ts';
import { localMatch, notLocalMatch } from './local-detector.ts';
import { isExternallyAccessible } from './service-port.ts';
import type { ProxiedPort } from './proxied-port.ts';

/** What one Service port adds to each shared chain, and the chains that are its own. */
export interface ServiceRules {
  readonly filterServices: Rules;
  readonly filterExternal: Rules;
  readonly filterNodePorts: Rules;
  readonly filterFirewall: Rules;
  readonly natServices: readonly AddressRule[];
  readonly natNodePorts: Rules;
  readonly natChains: readonly (readonly [string, Rules])[];
}

/** What a renderer of one port must know besides the options. */
export interface RenderContext {
  readonly options: IptablesOptions;
  /** Rules for single endpoints say whose they are; left out in large clusters, as in kube-proxy. */
  readonly endpointComments: boolean;
}

/** The port's own chains, and its lines in the chains that all Services share. */
export function serviceRules(port: ProxiedPort, context: RenderContext): ServiceRules {
  const view = viewOf(port, context);
  return {
    filterServices: view.internalTarget === undefined ? refuse(view, [port.clusterIP]) : [],
    filterExternal: view.reachesExternal ? [] : refuseExternal(view),
    filterNodePorts: healthCheckRules(port),
    filterFirewall: view.firewalled ? firewallDrops(view) : [],
    natServices: dispatchRules(view),
    natNodePorts: nodePortRules(view),
    natChains: port.endpoints.hasAny ? ownChains(view) : [],
  };
}

/** What the rules of a port have in common, decided once. */
interface View extends RenderContext {
  readonly port: ProxiedPort;
  readonly names: ServiceChainNames;
  /** Chain that serves the cluster address; undefined when it reaches nothing. */
  readonly internalTarget: string | undefined;
  /** Whether traffic from outside the cluster reaches an endpoint. */
  readonly reachesExternal: boolean;
  /** Whether loadBalancerSourceRanges guard the load balancer addresses. */
  readonly firewalled: boolean;
}

function viewOf(port: ProxiedPort, context: RenderContext): View {
  const names = serviceChainNames(port.printName, port.protocol);
  const { hasAny, local } = port.endpoints;
  const reaches = (policy: 'Cluster' | 'Local'): boolean =>
    hasAny && (policy === 'Cluster' || local.length > 0);
  const internalChain = port.internalPolicy === 'Local' ? names.local : names.cluster;
  return {
    ...context,
    port,
    names,
    internalTarget: reaches(port.internalPolicy) ? internalChain : undefined,
    reachesExternal: reaches(port.externalPolicy),
    firewalled: hasAny && port.loadBalancerIPs.length > 0 && port.sourceRanges.length > 0,
  };
}

function dispatchRules(view: View): AddressRule[] {
  const { port, names } = view;
  const rules: AddressRule[] = [];
  const dispatch = (destination: string, what: string, target: string): void => {
    rules.push({ destination, rule: toAddress(view, destination, what, target) });
  };
  if (view.internalTarget !== undefined)
    dispatch(port.clusterIP, 'cluster IP', view.internalTarget);
  if (!port.endpoints.hasAny) return rules;
  for (const ip of port.externalIPs) dispatch(ip, 'external IP', names.external);
  const balanced = view.firewalled ? names.firewall : names.external;
  for (const ip of port.loadBalancerIPs) dispatch(ip, 'loadbalancer IP', balanced);
  return rules;
}

function nodePortRules({ port, names }: View): string[] {
  if (port.nodePort === 0 || !port.endpoints.hasAny) return [];
  return [
    formatRule({
      protocol: port.protocol,
      matches: [comment(port.printName), protocolMatch(port.protocol, port.nodePort)],
      target: names.external,
    }),
  ];
}

/**
 * The answer when no endpoint may be used: REJECT when there is none anywhere, so that clients fail
 * at once; DROP when only this node has none, so that a load balancer tries another node.
 */
function refuse(view: View, addresses: readonly string[]): string[] {
  return addresses.map((ip) => refusal(view, { destination: single(ip) }));
}

function refuseExternal(view: View): string[] {
  const { port } = view;
  const rules = refuse(view, [...port.externalIPs, ...port.loadBalancerIPs]);
  if (port.nodePort === 0) return rules;
  return [...rules, refusal(view, { matches: ['-m addrtype --dst-type LOCAL'] }, port.nodePort)];
}

function refusal(view: View, to: RuleParts, destinationPort = view.port.port): string {
  const { port, options } = view;
  const none = port.endpoints.hasAny ? 'has no local endpoints' : 'has no endpoints';
  const icmp = options.family === 'ip' ? 'icmp-port-unreachable' : 'icmp6-port-unreachable';
  return formatRule({
    ...to,
    protocol: port.protocol,
    matches: [
      comment(`${port.printName} ${none}`),
      ...(to.matches ?? []),
      protocolMatch(port.protocol, destinationPort),
    ],
    target: port.endpoints.hasAny ? 'DROP' : `REJECT --reject-with ${icmp}`,
  });
}

function healthCheckRules(port: ProxiedPort): string[] {
  if (port.healthCheckNodePort === 0) return [];
  return [
    formatRule({
      protocol: 'tcp',
      matches: [
        comment(`${port.printName} health check node port`),
        protocolMatch('tcp', port.healthCheckNodePort),
      ],
      target: 'ACCEPT',
    }),
  ];
}

/** What the firewall chain let through has been translated; what still has this address was not. */
function firewallDrops(view: View): string[] {
  const { port, names } = view;
  const text = `traffic not accepted by ${names.firewall}`;
  return port.loadBalancerIPs.map((ip) => toAddress(view, ip, text, 'DROP'));
}

function ownChains(view: View): [string, Rules][] {
  const { port, names } = view;
  const { cluster, local, reachable } = port.endpoints;
  const own: [string, Rules][] = [];
  // The off-cluster masquerade stands in the chain of the internal policy only.
  const masquerade = view.internalTarget === undefined ? [] : masqueradeClusterIP(view);
  const headOf = (chain: string): Rules => (chain === view.internalTarget ? masquerade : []);
  if (cluster.length > 0) {
    own.push([
      names.cluster,
      [...headOf(names.cluster), ...policyChain(port, cluster, view.endpointComments)],
    ]);
  }
  if (local.length > 0) {
    own.push([
      names.local,
      [...headOf(names.local), ...policyChain(port, local, view.endpointComments)],
    ]);
  }
  if (isExternallyAccessible(port)) own.push([names.external, externalChain(view)]);
  if (view.firewalled) own.push([names.firewall, firewallChain(view)]);
  for (const endpoint of reachable) {
    const name = endpointChainName(port.printName, port.protocol, endpoint.target);
    own.push([name, endpointChain(port, endpoint, name, view.endpointComments)]);
  }
  return own;
}

/**
 * Traffic to the cluster address from outside the cluster must return through this node, which
 * knows the translation.
 */
function masqueradeClusterIP({ port, options }: View): string[] {
  const notLocal = options.masqueradeAll
    ? {}
    : notLocalMatch(options.localDetector, options.family);
  if (notLocal === undefined) return [];
  return [
    formatRule({
      ...notLocal,
      destination: single(port.clusterIP),
      protocol: port.protocol,
      matches: [comment(`${port.printName} cluster IP`), protocolMatch(port.protocol, port.port)],
      target: chains.markMasquerade,
    }),
  ];
}

function externalChain(view: View): string[] {
  const { port, names } = view;
  const rules = port.externalPolicy === 'Local' ? shortCircuits(view) : [masqueradeExternal(port)];
  if (view.reachesExternal) {
    const target = port.externalPolicy === 'Local' ? names.local : names.cluster;
    rules.push(formatRule({ target }));
  }
  return rules;
}

/** Any node may take the packet, so the reply must come back through this one. */
function masqueradeExternal(port: ProxiedPort): string {
  return formatRule({
    matches: [comment(`masquerade traffic for ${port.printName} external destinations`)],
    target: chains.markMasquerade,
  });
}

/**
 * With policy Local, pods and the node itself still reach every endpoint, as if they had gone out
 * to the load balancer. The node is masqueraded: its source may be the external address itself.
 */
function shortCircuits({ port, options, names }: View): string[] {
  const pods = localMatch(options.localDetector, options.family);
  const text = (verb: string): string =>
    comment(`${verb} for ${port.printName} external destinations`);
  const fromNode = '-m addrtype --src-type LOCAL';
  return [
    ...(pods === undefined
      ? []
      : [formatRule({ ...pods, matches: [text('pod traffic')], target: names.cluster })]),
    formatRule({
      matches: [text('masquerade LOCAL traffic'), fromNode],
      target: chains.markMasquerade,
    }),
    formatRule({ matches: [text('route LOCAL traffic'), fromNode], target: names.cluster }),
  ];
}

function firewallChain({ port, options, names }: View): string[] {
  const admitted = port.sourceRanges.map(formatPrefix);
  const node = options.nodeAddress === undefined ? undefined : parseAddress(options.nodeAddress);
  // The node may own the load balancer's address and then uses it as the source towards it.
  if (node !== undefined && port.sourceRanges.some((range) => containsAddress(range, node))) {
    admitted.push(...port.loadBalancerIPs.map(single));
  }
  const admit = (source: string): string =>
    formatRule({
      source,
      matches: [comment(`${port.printName} loadbalancer IP`)],
      target: names.external,
    });
  const rest = `other traffic to ${port.printName} will be dropped by ${chains.proxyFirewall}`;
  return [...admitted.map(admit), formatRule({ matches: [comment(rest)] })];
}

function toAddress({ port }: View, ip: string, what: string, target: string): string {
  return formatRule({
    destination: single(ip),
    protocol: port.protocol,
    matches: [comment(`${port.printName} ${what}`), protocolMatch(port.protocol, port.port)],
    target,
  });
}

function single(ip: string): string {
  return formatPrefix(hostPrefix(parseAddress(ip)));
}
