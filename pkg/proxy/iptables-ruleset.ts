/**
 * Renders the proxy's snapshot as kube-proxy's iptables layout: same chains, comments, order and
 * mark, since tools and people grep for them. Pure: equal input gives byte-equal output.
 */
import { formatPrefix, hostPrefix } from '#pkg/ip/prefix.ts';
import { parseAddress } from '#pkg/ip/address.ts';
import { comment, formatRule } from '#pkg/iptables/rule.ts';
import type { Rules, Ruleset, Table } from '#pkg/iptables/ruleset.ts';
import { chains, filterBaseChains, filterJumps, natBaseChains, natJumps } from './iptables-base.ts';
import { servesLocalhost, type IptablesOptions } from './iptables-options.ts';
import { serviceRules, type ServiceRules } from './iptables-service.ts';
import type { ProxiedPort } from './proxied-port.ts';

/** All rules of one family. `ports` must be sorted by `byName`. */
export function iptablesRuleset(ports: readonly ProxiedPort[], options: IptablesOptions): Ruleset {
  const rules = ports.map((port) => serviceRules(port, options));
  const mangle: Table = {
    name: 'mangle',
    chains: new Map([[chains.canary, []]]),
    jumps: new Map<string, Rules>(),
  };
  return {
    family: options.family,
    tables: [filterTable(rules, options), natTable(rules, options), mangle],
  };
}

function filterTable(rules: readonly ServiceRules[], options: IptablesOptions): Table {
  return {
    name: 'filter',
    chains: new Map<string, Rules>([
      ...filterBaseChains(options),
      [chains.services, rules.flatMap((r) => r.filterServices)],
      [chains.externalServices, rules.flatMap((r) => r.filterExternal)],
      [chains.nodePorts, rules.flatMap((r) => r.filterNodePorts)],
      [chains.proxyFirewall, rules.flatMap((r) => r.filterFirewall)],
    ]),
    jumps: filterJumps(options),
  };
}

function natTable(rules: readonly ServiceRules[], options: IptablesOptions): Table {
  return {
    name: 'nat',
    chains: new Map<string, Rules>([
      ...natBaseChains(options),
      [chains.services, [...rules.flatMap((r) => r.natServices), ...toNodePorts(options)]],
      [chains.nodePorts, rules.flatMap((r) => r.natNodePorts)],
      ...rules.flatMap((r) => r.natChains),
    ]),
    jumps: natJumps(),
  };
}

/** Node ports come last: an address of the host that is also a Service's belongs to the Service. */
function toNodePorts(options: IptablesOptions): string[] {
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

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}
