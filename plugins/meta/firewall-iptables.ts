/**
 * A container's way through iptables' FORWARD, in the reference plugin's chains (table filter):
 *
 *     FORWARD      first → CNI-ISOLATION-STAGE-1 (ingressPolicy), → CNI-FORWARD
 *     CNI-FORWARD  first → CNI-ADMIN; then answers to each address, and all from it: ACCEPT
 *
 * Other than in the reference, a container's rules carry a comment that says whose they are: DEL
 * and GC need no more than that.
 */
import { comment, splitWords } from '#pkg/iptables/rule.ts';
import type { Attachment } from '#pkg/cni/environment.ts';
import type { Family } from '#pkg/ip/address.ts';
import { attachmentComment } from './attachment-comment.ts';
import type { FirewallWish } from './firewall-config.ts';
import { ensureChain, ensureRule, type SavedTable } from './iptables-table.ts';

const forwardChain = 'CNI-FORWARD';
const stage1 = 'CNI-ISOLATION-STAGE-1';
const stage2 = 'CNI-ISOLATION-STAGE-2';

/** Lines that give the attachment its rules, in place of those it had. */
export function planForward(saved: SavedTable, wish: FirewallWish): string[] {
  const own = ownRules(wish);
  const outdated = commentedRules(saved).filter(
    ({ text, label }) => label === labelOf(wish.network, wish) && !own.includes(text),
  );
  return [
    ...ensureChain(saved, forwardChain),
    ...ensureChain(saved, wish.config.adminChain),
    ...ensureRule(saved, 'FORWARD', jump('CNI firewall plugin rules', forwardChain), 'first'),
    ...ensureRule(saved, forwardChain, adminJump(wish), 'first'),
    ...isolation(saved, wish),
    ...outdated.map(({ text }) => `-D ${forwardChain} ${text}`),
    ...own.flatMap((rule) => ensureRule(saved, forwardChain, rule)),
  ];
}

/** The rule that is missing, in words; undefined when all are there. */
export function missingForward(saved: SavedTable, wish: FirewallWish): string | undefined {
  const { config, family } = wish;
  const forward = saved.get(forwardChain) ?? [];
  const expected: [string, string][] = [
    ['FORWARD', jump('CNI firewall plugin rules', forwardChain)],
    [forwardChain, adminJump(wish)],
  ];
  const [chain, rule] = expected.find(([c, r]) => saved.get(c)?.includes(r) !== true) ?? [];
  if (rule !== undefined) return `expected ${chain} rule ${rule} not found`;
  if (!saved.has(config.adminChain)) return `expected chain ${config.adminChain} not found`;
  const [lost] = isolation(saved, wish);
  if (lost !== undefined) return `expected rule ${lost} not found`;
  // A container that the reference plugin added has them without a comment.
  const plain = wish.addresses.flatMap((address) => plainRules(family, address));
  const found = ownRules(wish).findIndex(
    (own, i) => !forward.includes(own) && !forward.includes(plain[i] ?? ''),
  );
  return found < 0 ? undefined : `expected rule ${plain[found]} not found`;
}

/**
 * Lines that take away rules by what their comments say. What the reference plugin made has none:
 * it goes by the addresses of a result.
 */
export function removeForward(
  saved: SavedTable,
  goes: (label: string) => boolean,
  plain: { readonly family: Family; readonly addresses: readonly string[] },
): string[] {
  const labelled = commentedRules(saved).filter(({ label }) => goes(label));
  const reference = plain.addresses.flatMap((address) => plainRules(plain.family, address));
  const present = reference.filter((rule) => saved.get(forwardChain)?.includes(rule) === true);
  return [...labelled.map(({ text }) => text), ...present].map((r) => `-D ${forwardChain} ${r}`);
}

/** The comment of a rule is this, then what `attachmentComment` says. */
const labelPrefix = 'CNI firewall ';

function labelOf(network: string, attachment: Attachment): string {
  return attachmentComment(network, attachment);
}

function commentedRules(saved: SavedTable): { readonly text: string; readonly label: string }[] {
  return (saved.get(forwardChain) ?? []).flatMap((text) => {
    const words = splitWords(text);
    const said = words[words.indexOf('--comment') + 1] ?? '';
    return said.startsWith(labelPrefix) ? [{ text, label: said.slice(labelPrefix.length) }] : [];
  });
}

/** As iptables-save prints them. */
function ownRules({ network, family, addresses, ...attachment }: FirewallWish): string[] {
  const label = comment(`${labelPrefix}${labelOf(network, attachment)}`);
  return addresses.flatMap((address) => {
    const host = hostPrefix(family, address);
    return [
      `-d ${host} ${label} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
      `-s ${host} ${label} -j ACCEPT`,
    ];
  });
}

function plainRules(family: Family, address: string): string[] {
  const host = hostPrefix(family, address);
  return [
    `-d ${host} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
    `-s ${host} -j ACCEPT`,
  ];
}

function hostPrefix(family: Family, address: string): string {
  return `${address}/${family === 'ip' ? 32 : 128}`;
}

function adminJump({ config }: FirewallWish): string {
  return jump('CNI firewall plugin admin overrides', config.adminChain);
}

function jump(text: string, chain: string): string {
  return `${comment(text)} -j ${chain}`;
}

/**
 * What comes from one bridge does not go to another: for all bridges that have such a policy, so it
 * stays when a container goes. With `isolated` it does not go to its own bridge either, where the
 * kernel shows us such frames at all (br_netfilter); answers do.
 */
function isolation(saved: SavedTable, { bridge, config }: FirewallWish): string[] {
  if (bridge === undefined) return [];
  const label = comment('CNI firewall plugin rules (ingressPolicy: same-bridge)');
  const isolated = comment('CNI firewall plugin rules (ingressPolicy: isolated)');
  return [
    ...ensureChain(saved, stage1),
    ...ensureChain(saved, stage2),
    ...ensureRule(saved, 'FORWARD', `${label} -j ${stage1}`, 'first'),
    ...ensureRule(saved, stage1, `-i ${bridge} ! -o ${bridge} ${label} -j ${stage2}`, 'first'),
    ...(config.ingressPolicy === 'isolated'
      ? ensureRule(
          saved,
          stage1,
          `-i ${bridge} -o ${bridge} ${isolated} -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP`,
          'first',
        )
      : []),
    ...ensureRule(saved, stage1, `${label} -j RETURN`),
    ...ensureRule(saved, stage2, `-o ${bridge} ${label} -j DROP`, 'first'),
    ...ensureRule(saved, stage2, `${label} -j RETURN`),
  ];
}
