/** What kube-proxy in any mode, or this proxy, leaves in the kernel, and what of it is to go. Pure. */
import type { ProxyMode } from '#pkg/config/proxy-config.ts';
import { families, tryParseAddress, type Family } from '#pkg/ip/address.ts';
import { containsAddress, type Prefix } from '#pkg/ip/prefix.ts';
import type { Backend } from '#pkg/iptables/detect.ts';
import { temporaryName } from '#pkg/ipset/ip-set.ts';
import { planRemoval, type Removal } from '#pkg/iptables/plan-removal.ts';
import { isServiceChain, type TableName } from '#pkg/iptables/ruleset.ts';
import { ipvsSets } from '#pkg/proxy/ipvs-sets.ts';

/** What was found on the host, of whomever it is. */
export interface Found {
  /** One for each family and packet filter that the host has. */
  readonly iptables: readonly {
    readonly family: Family;
    readonly backend: Backend;
    readonly save: string;
  }[];
  readonly nftTables: readonly NftTable[];
  /** As ipvsadm names them: "-t 10.96.0.1:443". */
  readonly virtualServers: readonly string[];
  readonly hasDummyDevice: boolean;
  readonly ipsets: readonly string[];
  /** net.ipv4.conf.all.route_localnet: neighbours reach 127.0.0.0/8 of this node but for the guard. */
  readonly routesLocalnet: boolean;
}

export interface NftTable {
  readonly family: string;
  readonly name: string;
}

export type CleanupStep =
  | ({ readonly kind: 'iptables'; readonly family: Family; readonly backend: Backend } & Removal)
  | ({ readonly kind: 'nft-table' } & NftTable)
  | { readonly kind: 'virtual-server'; readonly server: string }
  | { readonly kind: 'dummy-device'; readonly name: string }
  | { readonly kind: 'ipset'; readonly name: string };

export interface Spared {
  /** The mode in use, whose own objects stay; undefined = none does. */
  readonly keep: ProxyMode | undefined;
  /** Virtual servers with these addresses stay. */
  readonly excludeCIDRs: readonly Prefix[];
}

/** The device that holds the addresses of Services in mode ipvs. */
export const dummyDevice = 'kube-ipvs0';

/**
 * Steps in the order in which they can be done: a set is in use while a rule names it. Virtual
 * servers go only where kube-ipvs0 says that a proxy made them: others use IPVS too.
 */
export function planCleanup(found: Found, { excludeCIDRs, keep }: Spared): CleanupStep[] {
  const steps: CleanupStep[] = [];
  for (const { backend, family, save } of found.iptables) {
    const guarded = family === 'ip' && found.routesLocalnet ? [guard] : [];
    const isOurs = removableChains(keep, save, guarded);
    const isStray = keep === 'ipvs' ? isStrayBesideIpvs : () => false;
    const removal = planRemoval(save, { isOurs, isShared: isSharedWithKubelet, isStray });
    if (removal.steps.length > 0) steps.push({ kind: 'iptables', family, backend, ...removal });
  }
  if (keep !== 'ipvs' && found.hasDummyDevice) {
    for (const server of found.virtualServers) {
      if (!isExcluded(server, excludeCIDRs)) steps.push({ kind: 'virtual-server', server });
    }
    steps.push({ kind: 'dummy-device', name: dummyDevice });
  }
  if (keep !== 'ipvs') {
    for (const name of found.ipsets) if (ipsets.has(name)) steps.push({ kind: 'ipset', name });
  }
  for (const table of found.nftTables) {
    const isOwn = keep === 'nftables' && table.name === ownTable;
    if (isProxyTable(table) && !isOwn) steps.push({ kind: 'nft-table', ...table });
  }
  return steps;
}

/** "ip kube-proxy" and "ip6 kube-proxy" are kube-proxy's; the rest is ours. */
const ownTable = 'podwire-proxy';

function isProxyTable({ family, name }: NftTable): boolean {
  return ['ip', 'ip6', 'inet'].includes(family) && ['kube-proxy', ownTable].includes(name);
}

/** Of the iptables and ipvs modes, and of versions of kube-proxy before. */
const commonChains: Readonly<Record<TableName, readonly string[]>> = {
  filter: [
    'KUBE-EXTERNAL-SERVICES',
    'KUBE-FIREWALL',
    'KUBE-FORWARD',
    'KUBE-NODEPORTS',
    'KUBE-PROXY-CANARY',
    'KUBE-PROXY-FIREWALL',
    'KUBE-SERVICES',
  ],
  nat: [
    'KUBE-MARK-DROP',
    'KUBE-MARK-MASQ',
    'KUBE-NODEPORTS',
    'KUBE-POSTROUTING',
    'KUBE-PROXY-CANARY',
    'KUBE-SERVICES',
  ],
  mangle: ['KUBE-PROXY-CANARY'],
};

/** Chains that mode ipvs has and mode iptables has not. */
const ipvsChains: Readonly<Record<TableName, readonly string[]>> = {
  filter: [
    'KUBE-IPVS-FILTER',
    'KUBE-IPVS-OUT-FILTER',
    'KUBE-NODE-PORT',
    'KUBE-SOURCE-RANGES-FIREWALL',
  ],
  nat: ['KUBE-LOAD-BALANCER', 'KUBE-NODE-PORT'],
  mangle: [],
};

/** Chains that mode iptables has and mode ipvs has not, beside those of single Services. */
const iptablesChains: Readonly<Record<TableName, readonly string[]>> = {
  filter: ['KUBE-EXTERNAL-SERVICES', 'KUBE-FIREWALL', 'KUBE-NODEPORTS', 'KUBE-SERVICES'],
  nat: ['KUBE-NODEPORTS'],
  mangle: [],
};

/** Drops what comes from elsewhere to 127.0.0.0/8. */
const guard = 'KUBE-FIREWALL';

/** @param guarded chains that stay because the node needs them */
function removableChains(
  keep: ProxyMode | undefined,
  save: string,
  guarded: readonly string[],
): (table: TableName, chain: string) => boolean {
  if (keep === 'iptables') return (table, chain) => ipvsChains[table].includes(chain);
  // The kubelet keeps the guard and, before 1.28, the mark to drop, where it runs.
  const hasKubelet = /^:KUBE-(?:KUBELET-CANARY|IPTABLES-HINT) /m.test(save);
  const staying = [...guarded, ...(hasKubelet ? [guard, 'KUBE-MARK-DROP'] : [])];
  const isOfMode = (table: TableName, chain: string): boolean =>
    keep === 'ipvs'
      ? iptablesChains[table].includes(chain)
      : commonChains[table].includes(chain) || ipvsChains[table].includes(chain);
  return (table, chain) =>
    !staying.includes(chain) && (isPerService(chain) || isOfMode(table, chain));
}

/** A jump of mode iptables, from where mode ipvs has none, into a chain that both have. */
function isStrayBesideIpvs(table: TableName, chain: string, target: string): boolean {
  return table === 'filter' && chain === 'OUTPUT' && target === 'KUBE-PROXY-FIREWALL';
}

/** KUBE-XLB- was KUBE-SVL- until Kubernetes 1.24; KUBE-SVT- are those of the layout "tree". */
function isPerService(chain: string): boolean {
  return isServiceChain(chain) || /^KUBE-(?:XLB-[A-Z2-7]{16}|SVT-\S+)$/.test(chain);
}

/** Host ports of older runtimes are masqueraded by these. */
function isSharedWithKubelet(table: TableName, chain: string): boolean {
  return table === 'nat' && (chain === 'KUBE-MARK-MASQ' || chain === 'KUBE-POSTROUTING');
}

function isExcluded(server: string, ranges: readonly Prefix[]): boolean {
  const text = /^-\S+ \[?(.*?)\]?:\d+$/.exec(server)?.[1];
  const address = text === undefined ? undefined : tryParseAddress(text);
  return address !== undefined && ranges.some((range) => containsAddress(range, address));
}

/** kube-proxy's, and those that only this proxy makes, also while it fills them. */
const ipsets: ReadonlySet<string> = new Set(
  families.flatMap((family) => ipvsSets(family).flatMap(({ name }) => [name, temporaryName(name)])),
);

/** For logs and errors: "ipset KUBE-CLUSTER-IP". */
export function describeStep(step: CleanupStep): string {
  switch (step.kind) {
    case 'iptables': {
      const family = step.family === 'ip' ? 'IPv4' : 'IPv6';
      return `${family} rules of iptables (${step.backend})`;
    }
    case 'nft-table':
      return `nftables table ${step.family} ${step.name}`;
    case 'virtual-server':
      return `IPVS virtual server ${step.server}`;
    case 'dummy-device':
      return `device ${step.name}`;
    case 'ipset':
      return `ipset ${step.name}`;
  }
}
