/**
 * Session affinity: a map remembers which endpoint a client of a Service's address had. Packets fill
 * it, after their translation, when conntrack still knows what they asked for.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Chain, Rule } from '#pkg/nftables/ruleset.ts';
import type { NftablesOptions } from './nftables-options.ts';
import { affinityMap } from './nftables-sets.ts';

/** conntrack's ports have a type only where the protocol is known, hence a rule for each. */
const protocols = ['tcp', 'udp', 'sctp'] as const;

/** Chain that remembers a client for so many seconds since its last new connection. */
export function rememberName(seconds: number): string {
  return `remember-${seconds}`;
}

const pattern = /^remember-(\d+)$/;

/** Whether elements may lead to a chain of this name: others are the table's own structure. */
export function isOnDemand(name: string): boolean {
  return pattern.test(name);
}

/** One rule, which nft can print but not read: see `pkg/nfnetlink/remember-chain.ts`. */
export interface OnDemandChain extends Chain {
  readonly seconds: number;
  readonly rules: readonly [Rule];
}

/**
 * The chain of a name that elements use.
 *
 * @throws {AgentError} UnknownChain
 */
export function onDemandChain(name: string, { family }: NftablesOptions): OnDemandChain {
  const seconds = pattern.exec(name)?.[1];
  if (seconds === undefined) {
    throw new AgentError('UnknownChain', `Cannot make chain ${name}: expected remember-<seconds>`);
  }
  const rule = {
    text: `update @${affinityMap} { ${original(family)} . ${family} saddr timeout ${seconds}s : ${family} daddr . th dport }`,
    why: `clients return for ${seconds} s`,
  };
  return { name, seconds: Number(seconds), rules: [rule] };
}

/** Leads to the chain above; for packets that were translated. */
export function affinityRules({ family }: NftablesOptions): Rule[] {
  return protocols.flatMap((protocol) => [
    {
      text: `meta l4proto ${protocol} ${original(family)} vmap @affinity-services`,
      why: 'Services with session affinity',
    },
    {
      text: `meta l4proto ${protocol} meta l4proto . ct original proto-dst vmap @affinity-node-ports`,
      why: 'node ports with session affinity',
    },
  ]);
}

function original(family: NftablesOptions['family']): string {
  return `ct original ${family} daddr . meta l4proto . ct original proto-dst`;
}
