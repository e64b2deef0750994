/**
 * Masquerading in iptables: a chain for each container, named as the reference plugins name it. They
 * leave the interface out of the name, so that two interfaces of a container share the chain; our
 * rules tell by their comment whose they are.
 */
import type { Attachment } from '#pkg/cni/environment.ts';
import { containerChainName } from '#pkg/cni/chain-name.ts';
import { families, type Family } from '#pkg/ip/address.ts';
import { familyOf, formatPrefix, hostPrefix, networkOf, type Prefix } from '#pkg/ip/prefix.ts';
import { splitWords } from '#pkg/iptables/rule.ts';
import { attachmentComment, isOfAttachment, isStale } from '#plugins/meta/attachment-comment.ts';
import {
  ensureChain,
  jumpTarget,
  quoteWord,
  readTable,
  updateTable,
  type IptablesTarget,
  type SavedTable,
} from '#plugins/meta/iptables-table.ts';
import type { RunNetfilter } from '#plugins/meta/run-netfilter.ts';
import { UnusableBackend, type MasqueradeOwner } from './masquerade-owner.ts';

/** Rules for what the attachment sends from these prefixes to elsewhere. */
export function addIptablesMasquerade(
  run: RunNetfilter,
  owner: MasqueradeOwner,
  prefixes: readonly Prefix[],
): void {
  for (const family of families) {
    const own = prefixes.filter((prefix) => familyOf(prefix) === family);
    if (own.length === 0) continue;
    updateTable(natTable(run, family), (saved) => addLines(saved, owner, own));
  }
}

/** Takes the attachment's rules away; none is well. */
export function deleteIptablesMasquerade(run: RunNetfilter, owner: MasqueradeOwner): void {
  removeRules(run, (rule) => isOf(rule, owner));
}

/** Takes away the network's rules of attachments that are not valid. */
export function collectIptablesMasquerade(
  run: RunNetfilter,
  network: string,
  valid: readonly Attachment[],
): void {
  const theirs = new Set(
    valid.map(({ containerId }) => referenceComment({ network, containerId })),
  );
  const theirStart = referenceComment({ network, containerId: '' }).slice(0, -1);
  removeRules(run, ({ comment }) => {
    if (isStale(comment, network, valid)) return true;
    return comment.startsWith(theirStart) && !theirs.has(comment);
  });
}

/** Whether any rule of the attachment is there. */
export function hasIptablesMasquerade(run: RunNetfilter, owner: MasqueradeOwner): boolean {
  return readTables(run)
    .values()
    .some((saved) => ownedRules(saved).some((rule) => isOf(rule, owner)));
}

/** A rule of a chain that masquerades, or of POSTROUTING that leads there. */
interface OwnedRule {
  readonly chain: string;
  readonly rule: string;
  readonly comment: string;
  /** The container's chain. */
  readonly containerChain: string;
}

function addLines(
  saved: SavedTable,
  owner: MasqueradeOwner,
  prefixes: readonly Prefix[],
): readonly string[] {
  const chain = chainOf(owner);
  const comment = `-m comment --comment ${quoteWord(attachmentComment(owner.network, owner))}`;
  return [
    ...ensureChain(saved, chain),
    ...deleteLines(saved, (rule) => isOf(rule, owner), new Set([chain])),
    ...prefixes.flatMap((prefix) => [
      `-A ${chain} -d ${formatPrefix(networkOf(prefix))} ${comment} -j ACCEPT`,
      `-A ${chain} ! -d ${multicast[familyOf(prefix)]} ${comment} -j MASQUERADE`,
      `-A POSTROUTING -s ${formatPrefix(hostPrefix(prefix.address))} ${comment} -j ${chain}`,
    ]),
  ];
}

const multicast: Readonly<Record<Family, string>> = { ip: '224.0.0.0/4', ip6: 'ff00::/8' };

/** Removes rules in both families. */
function removeRules(run: RunNetfilter, isGone: (rule: OwnedRule) => boolean): void {
  const plan = (saved: SavedTable): string[] => deleteLines(saved, isGone, new Set());
  for (const [family, saved] of readTables(run)) {
    if (plan(saved).length > 0) updateTable(natTable(run, family), plan);
  }
}

/**
 * The tables of both families, but of one whose program is missing or cannot even list it: it made
 * no rules.
 *
 * @throws {UnusableBackend} when that is so for both families
 */
function readTables(run: RunNetfilter): ReadonlyMap<Family, SavedTable> {
  const tables = new Map<Family, SavedTable>();
  let failure: unknown;
  for (const family of families) {
    try {
      tables.set(family, readTable(natTable(run, family)));
    } catch (error) {
      failure ??= error;
    }
  }
  if (tables.size === 0) throw new UnusableBackend(failure);
  return tables;
}

/** Lines that delete the rules, and the chains that are empty then, but for those to `keep`. */
function deleteLines(
  saved: SavedTable,
  isGone: (rule: OwnedRule) => boolean,
  keep: ReadonlySet<string>,
): string[] {
  const gone = ownedRules(saved).filter(isGone);
  const chains = new Set(gone.map(({ containerChain }) => containerChain));
  const empty = [...chains].filter((chain) => {
    const removed = gone.filter((rule) => rule.chain === chain).length;
    return !keep.has(chain) && saved.get(chain)?.length === removed;
  });
  return [
    ...gone.map(({ chain, rule }) => `-D ${chain} ${rule}`),
    ...empty.map((chain) => `-X ${chain}`),
  ];
}

function ownedRules(saved: SavedTable): OwnedRule[] {
  return [...saved].flatMap(([chain, rules]) =>
    chain === 'POSTROUTING' || isContainerChain(chain)
      ? rules.flatMap((rule): OwnedRule[] => {
          const containerChain = chain === 'POSTROUTING' ? (jumpTarget(rule) ?? '') : chain;
          if (!isContainerChain(containerChain)) return [];
          return [{ chain, rule, comment: commentOf(rule), containerChain }];
        })
      : [],
  );
}

function commentOf(rule: string): string {
  const words = splitWords(rule);
  const at = words.indexOf('--comment');
  return at < 0 ? '' : (words[at + 1] ?? '');
}

/** Those of other plugins have a word after the first hyphen: CNI-DN-, CNI-HOSTPORT-, CNI-SN-. */
function isContainerChain(chain: string): boolean {
  return /^CNI-[0-9a-f]{24}$/.test(chain);
}

function isOf({ comment, containerChain }: OwnedRule, owner: MasqueradeOwner): boolean {
  if (containerChain !== chainOf(owner)) return false;
  return isOfAttachment(comment, owner) || comment === referenceComment(owner);
}

function chainOf({ network, containerId }: Omit<MasqueradeOwner, 'ifName'>): string {
  return containerChainName('', network, containerId);
}

/** The comment of the reference plugins on each of their rules. */
function referenceComment(owner: Omit<MasqueradeOwner, 'ifName'>): string {
  return `name: "${owner.network}" id: "${owner.containerId}"`;
}

function natTable(run: RunNetfilter, family: Family): IptablesTarget {
  return { run, family, table: 'nat' };
}
