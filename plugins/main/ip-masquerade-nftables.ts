/** Masquerading in nftables, in the reference plugins' own table. */
import type { Attachment } from '#pkg/cni/environment.ts';
import { referenceHash } from '#pkg/cni/reference-hash.ts';
import { formatAddress } from '#pkg/ip/address.ts';
import { familyOf, formatPrefix, networkOf, type Prefix } from '#pkg/ip/prefix.ts';
import {
  deleteNftRules,
  readNftTable,
  updateNftTable,
  type NftRule,
  type NftTarget,
} from '#plugins/meta/nft-table.ts';
import type { RunNetfilter } from '#plugins/meta/run-netfilter.ts';
import { UnusableBackend, type MasqueradeOwner } from './masquerade-owner.ts';

/** The table of the reference plugins. */
export const masqueradeTable = { family: 'inet', table: 'cni_plugins_masquerade' } as const;

const name = `${masqueradeTable.family} ${masqueradeTable.table}`;
const chain = 'masq_checks';

/** Rules for what the attachment sends from these prefixes; those it had are replaced. */
export function addNftMasquerade(
  run: RunNetfilter,
  owner: MasqueradeOwner,
  prefixes: readonly Prefix[],
): void {
  updateNftTable(target(run), (rules) => [
    ...baseLines,
    ...deleteNftRules(masqueradeTable, rules.filter(isOf(owner))),
    ...prefixes.map((prefix) => {
      const family = familyOf(prefix);
      const own = `${family} saddr ${formatAddress(prefix.address)}`;
      const outside = `${family} daddr != ${formatPrefix(networkOf(prefix))}`;
      return `add rule ${name} ${chain} ${own} ${outside} masquerade comment "${commentOf(owner)}"`;
    }),
  ]);
}

/** Takes the attachment's rules away; none is well. */
export function deleteNftMasquerade(run: RunNetfilter, owner: MasqueradeOwner): void {
  removeRules(run, isOf(owner));
}

/** Takes away the network's rules of attachments that are not valid. */
export function collectNftMasquerade(
  run: RunNetfilter,
  network: string,
  valid: readonly Attachment[],
): void {
  const keys = new Set(valid.map((attachment) => keyOf({ ...attachment, network })));
  removeRules(
    run,
    ({ comment }) =>
      comment.startsWith(`${hash16(network)}-`) && !keys.has(comment.slice(0, keyLength)),
  );
}

/** Whether any rule of the attachment is there. */
export function hasNftMasquerade(run: RunNetfilter, owner: MasqueradeOwner): boolean {
  return readRules(run).some(isOf(owner));
}

/** A program that is missing, or cannot even list the table, made no rules. */
function readRules(run: RunNetfilter): readonly NftRule[] {
  try {
    return readNftTable(target(run));
  } catch (cause) {
    throw new UnusableBackend(cause);
  }
}

function removeRules(run: RunNetfilter, isGone: (rule: NftRule) => boolean): void {
  if (!readRules(run).some(isGone)) return;
  updateNftTable(target(run), (rules) => deleteNftRules(masqueradeTable, rules.filter(isGone)));
}

function target(run: RunNetfilter): NftTarget {
  return { run, ...masqueradeTable };
}

/** Not for multicast: pods of a subnet talk so among each other. */
const baseLines: readonly string[] = [
  `add table ${name}`,
  `add chain ${name} ${chain}`,
  `add chain ${name} postrouting { type nat hook postrouting priority 100 ; }`,
  `flush chain ${name} postrouting`,
  `add rule ${name} postrouting ip daddr 224.0.0.0/4 return`,
  `add rule ${name} postrouting ip6 daddr ff00::/8 return`,
  `add rule ${name} postrouting goto ${chain}`,
];

/** Two hashes of 16 digits and a hyphen. */
const keyLength = 33;

function isOf(owner: MasqueradeOwner): (rule: NftRule) => boolean {
  const key = keyOf(owner);
  return ({ comment }) => comment.startsWith(key);
}

function keyOf({ network, containerId, ifName }: MasqueradeOwner): string {
  return `${hash16(network)}-${hash16(`${ifName}:${containerId}`)}`;
}

/** The key, then the same for people; nft takes 128 bytes. */
function commentOf(owner: MasqueradeOwner): string {
  const { network, containerId, ifName } = owner;
  const text = `${keyOf(owner)}, net: ${network}, if: ${ifName}, id: ${containerId}`;
  // A quotation mark ends nft's string; interface names may hold one.
  return text.replaceAll('"', '').slice(0, maxCommentLength);
}

const maxCommentLength = 128;

function hash16(text: string): string {
  return referenceHash(text).slice(0, 16);
}
