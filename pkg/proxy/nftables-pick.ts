/** The chains that choose an endpoint: one serves all Services of about as many endpoints. */
import type { Chain, Rule } from '#pkg/nftables/ruleset.ts';
import type { NftablesOptions } from './nftables-options.ts';
import { classes, classSet, kinds, localSlots, type Kind } from './nftables-sets.ts';

/** Chains that find a packet's class, and those that choose: "pick-services", "pick-services-8". */
export function pickChains(family: NftablesOptions['family']): Chain[] {
  const chains = kinds.flatMap((kind): Chain[] => [
    {
      name: pickChain(kind),
      rules: classes.map((size) => ({
        text: `${keyOf(kind, family)} @${classSet(kind, size)} goto ${pickChain(kind)}-${size}`,
        why: size === 1 ? 'one endpoint' : `up to ${size} endpoints`,
      })),
    },
    ...classes.map((size) => ({
      name: `${pickChain(kind)}-${size}`,
      rules: pickRules(kind, size, family),
    })),
  ]);
  return [firstUses(family), ...chains];
}

/**
 * Nothing leads here. The first rule of a script that uses a map gets from nft (1.0.6) a condition on
 * the protocol that the map's declaration names, as if the rule itself had named it: of "tcp dport"
 * the rule for Services of one endpoint became one for TCP alone.
 */
function firstUses(family: NftablesOptions['family']): Chain {
  const kinds = ['services', 'node-ports'] as const;
  const rules = kinds.map((kind): Rule => ({ text: lookup(kind, 1, family), why: 'of no use' }));
  return { name: 'first-uses', rules };
}

/** The chain that picks an endpoint for packets of this kind. */
export function pickChain(kind: Kind): string {
  return `pick-${kind}`;
}

/** What a packet asks for: address, protocol, port. */
export function front(family: NftablesOptions['family']): string {
  return `${family} daddr . ${portKey}`;
}

export const portKey = 'meta l4proto . th dport';

/**
 * A random slot of `size`, again if it is empty: more than half of them are taken, each with the same
 * chance, so the choice is fair whatever the number. A rule without an answer goes on to the next
 * one. After the last try, which one new connection in a thousand needs, half the slots are all taken.
 */
function pickRules(kind: Kind, size: number, family: NftablesOptions['family']): Rule[] {
  const first: Rule = { text: lookup(kind, size, family), why: `one of up to ${size}` };
  if (size <= 2) return [first];
  const again: Rule = { text: lookup(kind, size, family), why: 'that slot was empty' };
  const last: Rule = { text: lookup(kind, size / 2, family), why: 'none of these is empty' };
  return [first, ...Array.from({ length: triesFor(size) - 1 }, () => again), last];
}

function lookup(kind: Kind, slots: number, family: NftablesOptions['family']): string {
  const offset = kind.startsWith('local-') ? ` offset ${localSlots}` : '';
  const map = kind.endsWith('node-ports') ? 'node-port-endpoints' : 'endpoints';
  return `dnat ${family} to ${keyOf(kind, family)} . numgen random mod ${slots}${offset} map @${map}`;
}

/** So many that at most one in a thousand finds nothing: with size / 2 + 1 of size slots taken. */
function triesFor(size: number): number {
  const miss = 1 - (size / 2 + 1) / size;
  return Math.ceil(Math.log(1 / 1000) / Math.log(miss));
}

function keyOf(kind: Kind, family: NftablesOptions['family']): string {
  return kind.endsWith('node-ports') ? portKey : front(family);
}
