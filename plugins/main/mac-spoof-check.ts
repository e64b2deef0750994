/**
 * `macspoofchk`: a port of a bridge takes only frames with the pod's own MAC address as source. In
 * nftables, table and chains as the reference plugin has them, by which each finds what the other
 * made.
 */
import type { Attachment } from '#pkg/cni/environment.ts';
import { readValidAttachments } from '#pkg/cni/config.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import { shortHash } from '#pkg/cni/short-hash.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { attachmentComment, isStale } from '#plugins/meta/attachment-comment.ts';
import {
  deleteNftRules,
  readNftTable,
  updateNftTable,
  type NftRule,
  type NftTarget,
} from '#plugins/meta/nft-table.ts';
import { netfilterRunner } from '#plugins/meta/run-netfilter.ts';

export interface SpoofCheck {
  readonly request: CniRequest;
  /** The host's end of the pod's veth. */
  readonly hostLink: string;
  /** The only source address. */
  readonly mac: string;
  /** Gets the removal. */
  readonly undo: DisposableStack;
}

/** @throws {AgentError} CommandMissing, CommandFailed */
export function addSpoofCheck(
  system: CniSystem,
  { request, hostLink, mac, undo }: SpoofCheck,
): void {
  const id = referenceId(request);
  const [port, allowed] = chainsOf(id);
  // The reference looks for this comment on the first rule only: the others can say more.
  const comment = `comment "${ruleComment(id)}"`;
  const whose = attachmentComment(request.config.name, request).replaceAll('"', '');
  undo.defer(() => deleteSpoofCheck(system, request));
  updateNftTable(target(system, request), (rules) => [
    `add table ${table}`,
    `add chain ${table} ${baseChain} { type filter hook prerouting priority -300 ; }`,
    `add chain ${table} ${port}`,
    `add chain ${table} ${allowed}`,
    `flush chain ${table} ${port}`,
    `flush chain ${table} ${allowed}`,
    ...deleteNftRules(natTable, rules.filter(isJumpOf(id))),
    `add rule ${table} ${allowed} ether saddr ${mac} return comment "${whose}"`,
    `add rule ${table} ${allowed} drop comment "${whose}"`,
    `add rule ${table} ${port} jump ${allowed} comment "${whose}"`,
    `add rule ${table} ${baseChain} iifname "${hostLink}" jump ${port} ${comment}`,
  ]);
}

/** Whether the rules of ADD are there. */
export function hasSpoofCheck(system: CniSystem, request: CniRequest): boolean {
  const id = referenceId(request);
  const [, allowed] = chainsOf(id);
  const rules = readNftTable(target(system, request));
  return rules.some(isJumpOf(id)) && rules.filter(({ chain }) => chain === allowed).length === 2;
}

/** Idempotent, and needs nothing but names. */
export function deleteSpoofCheck(system: CniSystem, request: CniRequest): void {
  const id = referenceId(request);
  updateNftTable(target(system, request), (rules) => removeLines(rules, [id]));
}

/** Removes the rules of this network that belong to no valid attachment. */
export function collectSpoofChecks(system: CniSystem, request: CniRequest): void {
  const { config } = request;
  const valid = readValidAttachments(config);
  updateNftTable(target(system, request), (rules) => {
    const stale = rules.filter(({ comment }) => isStale(comment, config.name, valid));
    const ids = stale.flatMap(({ chain }) => /^cni-br-iface-(.*)-mac$/.exec(chain)?.[1] ?? []);
    return removeLines(rules, [...new Set(ids)]);
  });
}

const natTable = { family: 'bridge', table: 'nat' } as const;
const table = `${natTable.family} ${natTable.table}`;
const baseChain = 'PREROUTING';

function target(system: CniSystem, request: CniRequest): NftTarget {
  return { run: netfilterRunner(system, request), ...natTable };
}

function removeLines(rules: readonly NftRule[], ids: readonly string[]): string[] {
  return ids.flatMap((id) => {
    const chains = chainsOf(id).filter((name) => rules.some(({ chain }) => chain === name));
    return [
      ...deleteNftRules(natTable, rules.filter(isJumpOf(id))),
      ...chains.map((chain) => `flush chain ${table} ${chain}`),
      ...chains.map((chain) => `delete chain ${table} ${chain}`),
    ];
  });
}

/** The reference's name for an attachment, and a hash where nft does not take that for a chain. */
function referenceId({ containerId, ifName }: Attachment): string {
  const id = `${containerId}-${ifName}`;
  return /^[\w.-]{1,80}$/.test(id) ? id : shortHash(id);
}

/** The chain of a port, and that with its address. */
function chainsOf(id: string): readonly [string, string] {
  return [`cni-br-iface-${id}`, `cni-br-iface-${id}-mac`];
}

function ruleComment(id: string): string {
  return `macspoofchk-${id}`;
}

function isJumpOf(id: string): (rule: NftRule) => boolean {
  return ({ chain, comment }) => chain === baseChain && comment === ruleComment(id);
}
