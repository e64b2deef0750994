/**
 * The chains that elements lead to, each known by its name: one chain serves all Services with as
 * many endpoints, treated alike. A chain for each Service would make the kernel's commits quadratic.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Chain, Rule } from '#pkg/nftables/ruleset.ts';
import { markBit, type NftablesOptions } from './nftables-options.ts';
import { affinityMap, localSlots } from './nftables-sets.ts';

/** What a dispatch chain does to a packet. */
export interface Dispatch {
  /** Keyed by the Service's address, or by a node port, which answers on many addresses. */
  readonly by: 'vip' | 'node-port';
  readonly masquerade: boolean;
  /** Endpoints of this node only. */
  readonly local: boolean;
  /** Clients return to the endpoint they had. */
  readonly sticky: boolean;
  readonly count: number;
}

/** "vip-masq-local-sticky-3" */
export function dispatchName({ by, masquerade, local, sticky, count }: Dispatch): string {
  const words = [masquerade ? '-masq' : '', local ? '-local' : '', sticky ? '-sticky' : ''];
  return `${by}${words.join('')}-${count}`;
}

/** Remembers a client for so many seconds since its last new connection. */
export function rememberName(seconds: number): string {
  return `remember-${seconds}`;
}

/** Refuses at once, as a host without a listener does. */
export const rejectChain = 'reject-connection';

const pattern = /^(vip|node-port)(-masq)?(-local)?(-sticky)?-(\d+)$/;
const rememberPattern = /^remember-(\d+)$/;

/** Whether elements may lead to a chain of this name: others are the table's own structure. */
export function isOnDemand(name: string): boolean {
  return pattern.test(name) || rememberPattern.test(name);
}

/**
 * The chain of a name that elements use.
 *
 * @throws {AgentError} UnknownChain
 */
export function onDemandChain(name: string, options: NftablesOptions): Chain {
  const seconds = rememberPattern.exec(name)?.[1];
  if (seconds !== undefined) return { name, rules: rememberRules(Number(seconds), options) };
  const [, by, masquerade, local, sticky, count] = pattern.exec(name) ?? [];
  if (by === undefined) {
    throw new AgentError('UnknownChain', `Cannot make chain ${name}: expected a name as vip-masq-3`);
  }
  const dispatch: Dispatch = {
    by: by === 'vip' ? 'vip' : 'node-port',
    masquerade: masquerade !== undefined,
    local: local !== undefined,
    sticky: sticky !== undefined,
    count: Number(count),
  };
  return { name, rules: dispatchRules(dispatch, options) };
}

function dispatchRules(dispatch: Dispatch, options: NftablesOptions): Rule[] {
  const { family } = options;
  const rules: Rule[] = [];
  if (dispatch.masquerade) rules.push(markRule(options));
  if (dispatch.sticky) {
    rules.push({
      text: `dnat ${family} to ${front(family)} . ${family} saddr map @${affinityMap}`,
      why: 'the endpoint this client had',
    });
  }
  const offset = dispatch.local ? ` offset ${localSlots}` : '';
  const slot = `numgen random mod ${dispatch.count}${offset}`;
  const lookup =
    dispatch.by === 'vip'
      ? `${front(family)} . ${slot} map @endpoints`
      : `meta l4proto . th dport . ${slot} map @node-port-endpoints`;
  rules.push({
    text: `dnat ${family} to ${lookup}`,
    why: `one of ${dispatch.count}${dispatch.local ? ' on this node' : ''}`,
  });
  return rules;
}

/**
 * After the translation: what the client asked for is in conntrack's original tuple. Its port has
 * a type only where the protocol is known, hence a rule for each.
 */
function rememberRules(seconds: number, { family }: NftablesOptions): Rule[] {
  return protocols.map((protocol) => ({
    text:
      `meta l4proto ${protocol} update @${affinityMap} ` +
      `{ ${originalFront(family)} . ${family} saddr timeout ${seconds}s : ${family} daddr . th dport }`,
    why: `${protocol} clients return for ${seconds} s`,
  }));
}

export function markRule(options: NftablesOptions, match = ''): Rule {
  return {
    text: `${match}meta mark set meta mark or ${markBit(options)}`,
    why: 'replies must come back through this node',
  };
}

export const protocols = ['tcp', 'udp', 'sctp'] as const;

/** What a packet asks for: address, protocol, port. */
export function front(family: NftablesOptions['family']): string {
  return `${family} daddr . meta l4proto . th dport`;
}

/** The same of a packet that was translated. */
export function originalFront(family: NftablesOptions['family']): string {
  return `ct original ${family} daddr . meta l4proto . ct original proto-dst`;
}
