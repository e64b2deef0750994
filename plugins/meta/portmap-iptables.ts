/**
 * Host ports by iptables, in the reference plugin's chains and words (table nat):
 *
 *     PREROUTING, OUTPUT  --dst-type LOCAL      → CNI-HOSTPORT-DNAT
 *     CNI-HOSTPORT-DNAT   the container's ports → CNI-DN-<hash>
 *     CNI-DN-<hash>       source in need of it  → CNI-HOSTPORT-SETMARK; then DNAT
 *     POSTROUTING         first                 → CNI-HOSTPORT-MASQ: marked → MASQUERADE
 */
import { formatAddress, type Family } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import { containerChainName } from '#pkg/cni/chain-name.ts';
import { comment, formatRule, protocolMatch, splitWords } from '#pkg/iptables/rule.ts';
import { refuseTakenPorts, type HostPortClaim } from './host-port-claim.ts';
import {
  ensureChain,
  ensureRule,
  jumpTarget,
  quoteWord,
  removeChains,
  type SavedTable,
} from './iptables-table.ts';
import {
  mappingsFor,
  masqueradedSources,
  specificHostIp,
  type PortmapConfig,
  type PortMapping,
  type PortmapWish,
} from './portmap-config.ts';

const dnatChain = 'CNI-HOSTPORT-DNAT';
const setMarkChain = 'CNI-HOSTPORT-SETMARK';
const masqueradeChain = 'CNI-HOSTPORT-MASQ';

/**
 * Lines that give the container its ports, in place of what it had.
 *
 * @throws {CniError} code 100 for a port that another container has
 */
export function planPorts(saved: SavedTable, wish: PortmapWish): string[] {
  const { network, containerId, config, target } = wish;
  const chain = dnatChainName(network, containerId);
  const owners = chainOwners(saved);
  // An address belongs to one pod. What still leads here is left of one that is gone.
  const leadsHere = ({ claims }: ChainOwner): boolean =>
    claims.some((claim) => claim.target === formatAddress(target.address));
  refuseTakenPorts(
    {
      network,
      conditional: config.conditions[target.address.family].length > 0,
      mappings: mappingsFor(config, target.address.family),
    },
    owners.filter((o) => o.chain !== chain && !leadsHere(o)).flatMap(({ claims }) => claims),
  );
  const replaced = new Set([chain, ...owners.filter(leadsHere).map((owner) => owner.chain)]);
  return [
    ...sharedChains(saved, config),
    ...ensureChain(saved, chain),
    ...removeChains(saved, replaced).filter((line) => line !== `-X ${chain}`),
    ...chainRules(wish).map((rule) => `-A ${chain} ${rule}`),
    ...entryRules(wish).map(
      ({ rule, conditions }) => `-A ${dnatChain} ${rule} ${conditions}-j ${chain}`,
    ),
  ];
}

/** What is missing of a container's ports, in words; undefined when all is there. */
export function missingPorts(saved: SavedTable, wish: PortmapWish): string | undefined {
  const chain = dnatChainName(wish.network, wish.containerId);
  const rules = saved.get(chain);
  if (rules === undefined) return `chain ${chain} not found in iptables table nat`;
  const lost =
    chainRules(wish).find((rule) => !rules.includes(rule)) ??
    entryRules(wish).find(({ saved: text }) => !hasEntry(saved, chain, text))?.rule;
  if (lost !== undefined) return `rule ${lost} of chain ${chain} not found in table nat`;
  const shared = sharedChains(saved, wish.config);
  return shared.length === 0 ? undefined : `rule ${shared.join(', ')} not found in table nat`;
}

/** Chains of a container in a network, those of older releases of the reference too. */
export function containerChains(network: string, containerId: string): string[] {
  return ['DN-', 'SN-'].map((kind) => containerChainName(kind, network, containerId));
}

/** A container's chain, as found. */
export interface ChainOwner {
  readonly chain: string;
  readonly network: string;
  readonly containerId: string;
  readonly claims: readonly HostPortClaim[];
}

/** The chains that host ports lead to. */
export function chainOwners(saved: SavedTable): ChainOwner[] {
  const owners = new Map<string, ChainOwner>();
  for (const rule of saved.get(dnatChain) ?? []) {
    const chain = jumpTarget(rule);
    const words = splitWords(rule);
    const label = words[words.indexOf('--comment') + 1] ?? '';
    // A long one is cut short.
    const [, network, containerId] = /^dnat name: "([^"]*)" id: "([^"]*)/.exec(label) ?? [];
    if (chain === undefined || network === undefined || containerId === undefined) continue;
    const owner = { network, containerId, conditional: !plainEntry.test(rule) };
    const claims = (saved.get(chain) ?? []).flatMap((own) => claimOf(own, owner));
    owners.set(chain, { chain, network, containerId, claims });
  }
  return [...owners.values()];
}

/** A rule of {@link entryRules} without conditions, as iptables-save prints it. */
const plainEntry =
  /^-p \S+ -m comment --comment (?:\S+|"(?:[^"\\]|\\.)*") -m multiport --dports \S+ -j \S+$/;

function claimOf(
  rule: string,
  owner: Pick<HostPortClaim, 'network' | 'containerId' | 'conditional'>,
): HostPortClaim[] {
  const words = splitWords(rule);
  const after = (option: string): string | undefined => {
    const at = words.indexOf(option);
    return at < 0 ? undefined : words[at + 1];
  };
  const target = /^\[?(.*?)\]?:\d+$/.exec(after('--to-destination') ?? '')?.[1];
  const protocol = after('-p');
  if (target === undefined || protocol === undefined) return [];
  const hostIp = after('-d')?.replace(/\/\d+$/, '');
  return [{ ...owner, protocol, hostPort: Number(after('--dport')), hostIp, target }];
}

function dnatChainName(network: string, containerId: string): string {
  return containerChainName('DN-', network, containerId);
}

/** Lines for what all containers share, as far as it is missing. */
function sharedChains(saved: SavedTable, config: PortmapConfig): string[] {
  const ownMark = config.snat && config.externalSetMarkChain === undefined;
  const mark = `0x${(2 ** config.markBit).toString(16)}`;
  const marking = `${comment('CNI portfwd masquerade mark')} -j MARK --set-xmark ${mark}/${mark}`;
  const masquerading = `-m mark --mark ${mark}/${mark} -j MASQUERADE`;
  // Before the masquerading of the bridge and ptp plugins, which would take the packet.
  const entry = `${comment('CNI portfwd requiring masquerade')} -j ${masqueradeChain}`;
  const local = `-m addrtype --dst-type LOCAL -j ${dnatChain}`;
  return [
    ...(ownMark ? [setMarkChain, masqueradeChain] : []).flatMap((c) => ensureChain(saved, c)),
    ...ensureChain(saved, dnatChain),
    ...(ownMark
      ? [
          ...ensureRule(saved, setMarkChain, marking),
          ...ensureRule(saved, masqueradeChain, masquerading),
          ...ensureRule(saved, 'POSTROUTING', entry, 'first'),
        ]
      : []),
    ...['PREROUTING', 'OUTPUT'].flatMap((chain) => ensureRule(saved, chain, local)),
  ];
}

/** The container's own rules, as iptables-save prints them. The marks come before the DNAT. */
function chainRules({ config, target }: PortmapWish): string[] {
  const { family } = target.address;
  const rules = mappingsFor(config, family).flatMap((mapping) => {
    const match = {
      ...destinationOf(mapping, family),
      protocol: mapping.protocol,
      matches: [protocolMatch(mapping.protocol, mapping.hostPort)],
    };
    const mark = config.externalSetMarkChain ?? setMarkChain;
    const sources = config.snat ? (masqueradedSources(config, target) ?? [undefined]) : [];
    return [
      ...sources.map((source) =>
        formatRule({ ...match, ...(source === undefined ? {} : { source }), target: mark }),
      ),
      formatRule({ ...match, target: `DNAT --to-destination ${endpoint(target, mapping)}` }),
    ];
  });
  return [...new Set(rules)];
}

function destinationOf(mapping: PortMapping, family: Family): { destination?: string } {
  const hostIp = specificHostIp(mapping);
  return hostIp === undefined ? {} : { destination: `${hostIp}/${family === 'ip' ? 32 : 128}` };
}

function endpoint({ address }: Prefix, { containerPort }: PortMapping): string {
  const text = formatAddress(address);
  return address.family === 'ip' ? `${text}:${containerPort}` : `[${text}]:${containerPort}`;
}

/** `-m multiport` takes 15 ports. */
const maxPortsPerRule = 15;

interface EntryRule {
  /** For iptables-restore, without conditions and target. */
  readonly rule: string;
  /** Ending in a blank unless there are none. */
  readonly conditions: string;
  /** The part of it that iptables-save prints in one piece. */
  readonly saved: string;
}

/** The rules that lead to the container's chain, for all its ports whatever their host address. */
function entryRules({ network, containerId, config, target }: PortmapWish): EntryRule[] {
  const words = config.conditions[target.address.family];
  const conditions = words.map((word) => `${quoteWord(word)} `).join('');
  const label = cutComment(`dnat name: "${network}" id: "${containerId}"`);
  const protocols = [...new Set(config.mappings.map(({ protocol }) => protocol))].toSorted();
  return protocols.flatMap((protocol) => {
    const ports = config.mappings.filter((m) => m.protocol === protocol).map((m) => m.hostPort);
    const rules: EntryRule[] = [];
    for (let at = 0; at < ports.length; at += maxPortsPerRule) {
      const list = ports.slice(at, at + maxPortsPerRule).join(',');
      const matches = `${comment(label)} -m multiport --dports ${list}`;
      const saved = `-p ${protocol} ${matches} `;
      rules.push({ rule: `-p ${protocol} ${matches}`, conditions, saved });
    }
    return rules;
  });
}

function hasEntry(saved: SavedTable, chain: string, text: string): boolean {
  return (saved.get(dnatChain) ?? []).some(
    (rule) => rule.includes(text) && jumpTarget(rule) === chain,
  );
}

/** XT_MAX_COMMENT_LEN is 256 with its zero. */
function cutComment(text: string): string {
  return text.length <= 255 ? text : `${text.slice(0, 252)}...`;
}
