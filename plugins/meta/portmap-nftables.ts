/**
 * Host ports by nftables, in the reference plugin's table and chains, one table a family:
 *
 *     prerouting, output  to an address of the host → hostip_hostports, hostports
 *     hostip_hostports    ports of one host address: mark what needs it, dnat
 *     hostports           ports of all of them: the same
 *     masquerading        marked, to a container → masquerade
 *
 * Other than in the reference, a network's conditions stand in its own rules, where another
 * network's do not replace them, and comments name the attachment, not the container alone.
 */
import { formatAddress, type Address, type Family } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import type { Attachment } from '#pkg/cni/environment.ts';
import { attachmentComment, isOfAttachment } from './attachment-comment.ts';
import { refuseTakenPorts, type HostPortClaim } from './host-port-claim.ts';
import { deleteNftRules, isRecord, type NftRule } from './nft-table.ts';
import {
  mappingsFor,
  masqueradedSources,
  specificHostIp,
  type PortMapping,
  type PortmapWish,
} from './portmap-config.ts';

export const portmapTable = 'cni_hostport';

const anyAddressChain = 'hostports';
const oneAddressChain = 'hostip_hostports';
const masqueradeChain = 'masquerading';

/**
 * Lines that give the attachment its ports, in place of what it had.
 *
 * @throws {CniError} code 100 for a port that another container has
 */
export function planNftPorts(rules: readonly NftRule[], wish: PortmapWish): string[] {
  const { network, config, target } = wish;
  const { family } = target.address;
  // An address belongs to one pod. What still leads here is left of one that is gone.
  const claims = rules.flatMap(claimOf);
  const stale = new Set(
    claims
      .filter((claim) => claim.target === formatAddress(target.address))
      .map(({ comment }) => comment),
  );
  const goes = (comment: string): boolean => stale.has(comment) || isOwnRule(comment, wish);
  refuseTakenPorts(
    {
      network,
      conditional: config.conditions[family].length > 0,
      mappings: mappingsFor(config, family),
    },
    claims.filter(({ comment }) => !goes(comment)),
  );
  const replaced = rules.filter(({ comment }) => goes(comment));
  const table = `${family} ${portmapTable}`;
  return [
    ...sharedRules(family, config.snat),
    ...deleteNftRules({ family, table: portmapTable }, replaced),
    ...ownRules(wish).map(({ chain, rule }) => `add rule ${table} ${chain} ${rule}`),
  ];
}

/** What is missing of an attachment's ports, in words; undefined when all is there. */
export function missingNftPorts(rules: readonly NftRule[], wish: PortmapWish): string | undefined {
  const { config, target } = wish;
  const { family } = target.address;
  const own = rules.filter(({ comment }) => isOwnRule(comment, wish));
  const claims = own.flatMap(claimOf);
  const lost = mappingsFor(config, family).find(
    (mapping) => !claims.some((claim) => isClaimOf(claim, mapping, target)),
  );
  if (lost !== undefined) {
    return `missing hostport rule of ${lost.protocol} port ${lost.hostPort} in table ${family} ${portmapTable}`;
  }
  // Marks and masquerading.
  const wanted = ownRules(wish);
  for (const chain of [oneAddressChain, anyAddressChain, masqueradeChain]) {
    const inChain = (rule: { readonly chain: string }): boolean => rule.chain === chain;
    if (own.filter(inChain).length < wanted.filter(inChain).length) {
      return `missing hostport rules in "${chain}" chain`;
    }
  }
  const entered = ['prerouting', 'output'].find(
    (chain) => rules.filter((rule) => rule.chain === chain).length < 2,
  );
  return entered === undefined ? undefined : `missing jump in "${entered}" chain`;
}

/** Whether a rule belongs to the attachment; the reference writes the container's ID alone. */
export function isOwnRule(comment: string, attachment: Attachment): boolean {
  return comment === attachment.containerId || isOfAttachment(comment, attachment);
}

/** A claim, and the comment of its rule. */
export interface CommentedClaim extends HostPortClaim {
  readonly comment: string;
}

/** The host port of a rule; nothing for rules that translate none. */
export function claimOf({ chain, comment, expressions }: NftRule): CommentedClaim[] {
  let protocol = '';
  let hostPort: number | undefined;
  let hostIp: string | undefined;
  let target: string | undefined;
  let others = 0;
  for (const expression of expressions) {
    const { match, dnat } = isRecord(expression) ? expression : {};
    if (isRecord(dnat)) target = String(dnat['addr']);
    const left = isRecord(match) && isRecord(match['left']) ? match['left']['payload'] : undefined;
    if (!isRecord(match) || !isRecord(left)) {
      others += isRecord(dnat) ? 0 : 1;
    } else if (left['field'] === 'dport' && typeof match['right'] === 'number') {
      protocol = String(left['protocol']);
      hostPort = match['right'];
    } else if (left['field'] === 'daddr' && chain === oneAddressChain) {
      hostIp = String(match['right']);
    } else {
      others += 1;
    }
  }
  if (target === undefined || hostPort === undefined) return [];
  const [first = '', second] = comment.split(' ');
  // The reference's comments are the container's ID alone.
  const [network, containerId] = second === undefined ? ['', first] : [first, second];
  return [
    {
      protocol,
      hostPort,
      hostIp,
      target,
      comment,
      conditional: others > 0,
      network,
      containerId,
    },
  ];
}

function isClaimOf(claim: HostPortClaim, mapping: PortMapping, target: Prefix): boolean {
  return (
    claim.protocol === mapping.protocol &&
    claim.hostPort === mapping.hostPort &&
    claim.hostIp === specificHostIp(mapping) &&
    claim.target === formatAddress(target.address)
  );
}

/** Lines for what all containers share: they change nothing where it is there already. */
function sharedRules(family: Family, snat: boolean): string[] {
  const table = `${family} ${portmapTable}`;
  const entry = ['prerouting', 'output'].flatMap((chain) => [
    // A number: at output nft does not know the name dstnat.
    `add chain ${table} ${chain} { type nat hook ${chain} priority -100; }`,
    `flush chain ${table} ${chain}`,
    `add rule ${table} ${chain} fib daddr type local jump ${oneAddressChain}`,
    `add rule ${table} ${chain} fib daddr type local jump ${anyAddressChain}`,
  ]);
  return [
    `add table ${table}`,
    `add chain ${table} ${anyAddressChain}`,
    `add chain ${table} ${oneAddressChain}`,
    ...entry,
    ...(snat
      ? [`add chain ${table} ${masqueradeChain} { type nat hook postrouting priority 100; }`]
      : []),
    ...(snat && family === 'ip' ? localhostGuard(table) : []),
  ];
}

/**
 * With route_localnet the kernel takes packets to 127.0.0.0/8 from the wire too, and pods would
 * reach what listens on the host's localhost alone (CVE-2020-8558). Nothing rightful comes so.
 */
function localhostGuard(table: string): string[] {
  return [
    `add chain ${table} localhost_guard { type filter hook prerouting priority -300; }`,
    `flush chain ${table} localhost_guard`,
    `add rule ${table} localhost_guard iifname != "lo" ip daddr 127.0.0.0/8 drop`,
  ];
}

interface OwnRule {
  readonly chain: string;
  readonly rule: string;
}

function ownRules(wish: PortmapWish): OwnRule[] {
  const { network, config, target } = wish;
  const { family } = target.address;
  const comment = `comment "${attachmentComment(network, wish)}"`;
  const mark = `0x${(2 ** config.markBit).toString(16)}`;
  const sources = masqueradedSources(config, target);
  const from = sources === undefined ? '' : `${family} saddr { ${sources.join(', ')} } `;
  const rules = mappingsFor(config, family).flatMap((mapping) => {
    const hostIp = specificHostIp(mapping);
    const chain = hostIp === undefined ? anyAddressChain : oneAddressChain;
    const match = [
      ...config.conditions[family],
      ...(hostIp === undefined ? [] : [`${family} daddr ${hostIp}`]),
      `${mapping.protocol} dport ${mapping.hostPort}`,
    ].join(' ');
    const marking = `${match} ${from}meta mark set meta mark | ${mark} ${comment}`;
    const dnat = `${match} dnat to ${endpoint(target.address, mapping)} ${comment}`;
    return [...(config.snat ? [{ chain, rule: marking }] : []), { chain, rule: dnat }];
  });
  if (!config.snat || rules.length === 0) return rules;
  const pod = `${family} daddr ${formatAddress(target.address)}`;
  const masquerade = `${pod} meta mark & ${mark} == ${mark} masquerade ${comment}`;
  return [...rules, { chain: masqueradeChain, rule: masquerade }];
}

function endpoint(address: Address, { containerPort }: PortMapping): string {
  const text = formatAddress(address);
  return address.family === 'ip' ? `${text}:${containerPort}` : `[${text}]:${containerPort}`;
}
