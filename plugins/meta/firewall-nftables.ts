/**
 * A container's way through a forward chain of nftables, where iptables is not there: the chains of
 * firewall-iptables.ts under their names, in one table for both families. Its ACCEPT ends this table
 * alone: another table's DROP still drops.
 */
import type { Attachment } from '#pkg/cni/environment.ts';
import { attachmentComment, isOfAttachment } from './attachment-comment.ts';
import type { FirewallWish } from './firewall-config.ts';
import { deleteNftRules, type NftRule } from './nft-table.ts';

export const firewallTable = 'cni_firewall';

const family = 'inet';
const table = `${family} ${firewallTable}`;
const forwardChain = 'CNI-FORWARD';
const stage1 = 'CNI-ISOLATION-STAGE-1';
const stage2 = 'CNI-ISOLATION-STAGE-2';

/** Lines that give the attachment its rules, in place of those it had. */
export function planNftForward(
  rules: readonly NftRule[],
  wishes: readonly FirewallWish[],
): string[] {
  const own = wishes.flatMap(ownRules);
  const outdated = rules.filter(({ comment }) =>
    wishes.some((wish) => isOfAttachment(comment, wish)),
  );
  return [
    `add table ${table}`,
    ...[
      ...new Set(wishes.map(({ config }) => config.adminChain)),
      forwardChain,
      stage1,
      stage2,
    ].map((chain) => `add chain ${table} ${chain}`),
    `add chain ${table} forward { type filter hook forward priority 0; }`,
    ...sharedRules(wishes)
      .filter((rule) => !isThere(rules, rule))
      .map(({ chain, rule, comment, first }) =>
        [first ? 'insert' : 'add', 'rule', table, chain, rule, `comment "${comment}"`].join(' '),
      ),
    ...deleteNftRules({ family, table: firewallTable }, outdated),
    ...own.map((rule) => `add rule ${table} ${forwardChain} ${rule}`),
  ];
}

/** The rule that is missing, in words; undefined when all are there. */
export function missingNftForward(
  rules: readonly NftRule[],
  wishes: readonly FirewallWish[],
): string | undefined {
  const lost = sharedRules(wishes).find((rule) => !isThere(rules, rule));
  if (lost !== undefined) return `expected ${lost.chain} rule ${lost.rule} not found`;
  const expected = wishes.flatMap(ownRules).length;
  const found = rules.filter(
    ({ chain, comment }) =>
      chain === forwardChain && wishes.some((wish) => isOfAttachment(comment, wish)),
  ).length;
  if (found >= expected) return undefined;
  return `expected ${expected} rules of the container in ${forwardChain}, found ${found}`;
}

/** Lines that take away the rules whose comments `goes` says yes to. */
export function removeNftForward(
  rules: readonly NftRule[],
  goes: (comment: string) => boolean,
): string[] {
  const chosen = rules.filter(({ comment }) => goes(comment));
  return deleteNftRules({ family, table: firewallTable }, chosen);
}

function ownRules(wish: FirewallWish): string[] {
  const attachment: Attachment = wish;
  const comment = `comment "${attachmentComment(wish.network, attachment)}"`;
  return wish.addresses.flatMap((address) => [
    `${wish.family} daddr ${address} ct state established,related accept ${comment}`,
    `${wish.family} saddr ${address} accept ${comment}`,
  ]);
}

/** Told apart by their comments, which a colon keeps apart from those of containers. */
interface SharedRule {
  readonly chain: string;
  readonly rule: string;
  readonly comment: string;
  readonly first: boolean;
}

function sharedRules(wishes: readonly FirewallWish[]): SharedRule[] {
  const admins = [...new Set(wishes.map(({ config }) => config.adminChain))];
  const isolated = new Map(
    wishes.flatMap(({ bridge, config }) =>
      bridge === undefined ? [] : [[bridge, config.ingressPolicy] as const],
    ),
  );
  return [
    {
      chain: 'forward',
      rule: `jump ${forwardChain}`,
      comment: 'rules: of containers',
      first: false,
    },
    ...admins.map((admin) => ({
      chain: forwardChain,
      rule: `jump ${admin}`,
      comment: `admin: ${admin}`,
      first: true,
    })),
    ...[...isolated].flatMap(([bridge, policy]) => isolation(bridge, policy)),
  ];
}

function isolation(bridge: string, policy: string): SharedRule[] {
  const comment = `bridge: ${bridge}`;
  return [
    { chain: 'forward', rule: `jump ${stage1}`, comment: 'rules: of bridges', first: true },
    {
      chain: stage1,
      rule: `iifname "${bridge}" oifname != "${bridge}" jump ${stage2}`,
      comment,
      first: true,
    },
    { chain: stage2, rule: `oifname "${bridge}" drop`, comment, first: true },
    ...(policy === 'isolated'
      ? [
          {
            chain: stage1,
            rule: `iifname "${bridge}" oifname "${bridge}" ct state new,invalid drop`,
            comment: `isolated: ${bridge}`,
            first: true,
          },
        ]
      : []),
  ];
}

function isThere(rules: readonly NftRule[], { chain, comment }: SharedRule): boolean {
  return rules.some((rule) => rule.chain === chain && rule.comment === comment);
}
