/**
 * Where Services answered that were deleted while no proxy ran: the rules they left behind name
 * their addresses, and nothing else does any more.
 */
import { splitWords } from '#pkg/iptables/rule.ts';
import type { ObservedRuleset, Ruleset } from '#pkg/iptables/ruleset.ts';
import { chains } from './iptables-base.ts';
import { treeChainPrefix } from './chain-names.ts';
import type { ServiceDestination } from './flow-destinations.ts';

/** The destinations of UDP Services that `have` sends to endpoints and `want` does not know. */
export function abandonedDestinations(
  want: Ruleset,
  have: ObservedRuleset,
): readonly ServiceDestination[] {
  const wanted = new Set(udpRules(want));
  return [...udpRules(have)].flatMap((rule) => (wanted.has(rule) ? [] : destinationOf(rule)));
}

/** Rules by which packets to Services find their chains. */
function* udpRules({ tables }: Ruleset): Iterable<string> {
  const nat = tables.find(({ name }) => name === 'nat');
  for (const [chain, rules] of nat?.chains ?? []) {
    const isDispatch =
      chain === chains.services || chain === chains.nodePorts || chain.startsWith(treeChainPrefix);
    if (!isDispatch) continue;
    for (const rule of rules) if (rule.includes('-p udp ')) yield rule;
  }
}

/** In KUBE-NODEPORTS rules have no address; a rule without a port is not one of a Service. */
function destinationOf(rule: string): readonly ServiceDestination[] {
  const words = splitWords(rule);
  const valueOf = (option: string): string | undefined => {
    const at = words.indexOf(option);
    return at < 0 ? undefined : words[at + 1];
  };
  const port = Number(valueOf('--dport'));
  if (!Number.isInteger(port)) return [];
  const address = valueOf('-d')?.replace(/\/(?:32|128)$/, '');
  if (address === undefined) return [{ kind: 'node-port', port }];
  return address.includes('/') ? [] : [{ kind: 'address', address, port }];
}
