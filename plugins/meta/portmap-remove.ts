/** Taking host ports away, by whichever backend they were made. */
import { families, formatAddress } from '#pkg/ip/address.ts';
import type { Attachment } from '#pkg/cni/environment.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import { listAddresses } from '#pkg/netlink/address.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { openPodNetnsIfThere } from '#plugins/pod-netns.ts';
import { isStale } from './attachment-comment.ts';
import type { HostPortClaim } from './host-port-claim.ts';
import { removeChains, updateTable } from './iptables-table.ts';
import { removalFailure, unlessUnusable, type RemovalFailure } from './netfilter-backend.ts';
import { deleteNftRules, updateNftTable } from './nft-table.ts';
import { chainOwners, containerChains, type ChainOwner } from './portmap-iptables.ts';
import { claimOf, isOwnRule, portmapTable } from './portmap-nftables.ts';
import type { RunNetfilter } from './run-netfilter.ts';

/** Whose ports go: iptables has them in chains, nftables in rules with comments. */
export interface PortSelection {
  /** Names of chains, there or not; `owners` are those that ports lead to. */
  readonly chains: (owners: readonly ChainOwner[]) => readonly string[];
  readonly rule: (comment: string) => boolean;
}

export interface RemovedPorts {
  /** What was there. */
  readonly claims: readonly HostPortClaim[];
  /** Of a backend that could not be asked; undefined when that is just not installed here. */
  readonly failure: RemovalFailure | undefined;
}

/**
 * Removes from every table of both backends: the configuration may have changed since. A family
 * that does not work here (no IPv6 in the kernel) has nothing to remove.
 *
 * @throws {AgentError} CommandFailed when a change is refused
 */
export function removePorts(run: RunNetfilter, selection: PortSelection): RemovedPorts {
  const claims: HostPortClaim[] = [];
  const iptables = families.map((family) =>
    unlessUnusable((whenRead) => {
      updateTable({ run, family, table: 'nat' }, (saved) => {
        whenRead();
        const owners = chainOwners(saved);
        const chains = new Set(selection.chains(owners));
        claims.push(...owners.filter((o) => chains.has(o.chain)).flatMap((o) => o.claims));
        return removeChains(saved, chains);
      });
    }),
  );
  const nftables = unlessUnusable((whenRead) => {
    const tables = run('nft', ['list', 'tables']).split('\n');
    whenRead();
    for (const family of families.filter((f) => tables.includes(`table ${f} ${portmapTable}`))) {
      const target = { run, family, table: portmapTable };
      updateNftTable(target, (rules) => {
        const chosen = rules.filter(({ comment }) => selection.rule(comment));
        claims.push(...chosen.flatMap(claimOf));
        return deleteNftRules(target, chosen);
      });
    }
  });
  return { claims, failure: removalFailure([iptables, [nftables]], 'host ports') };
}

/** The ports of one attachment. */
export function portsOfAttachment(system: CniSystem, request: CniRequest): PortSelection {
  const own = containerChains(request.config.name, request.containerId);
  return {
    chains: (owners) => [...own, ...renamedChains(system, request, owners)],
    rule: (comment) => isOwnRule(comment, request),
  };
}

/** The ports of a network that belong to none of the attachments. */
export function stalePorts(network: string, valid: readonly Attachment[]): PortSelection {
  const kept = new Set(valid.flatMap(({ containerId }) => containerChains(network, containerId)));
  return {
    chains: (owners) =>
      owners.filter((o) => o.network === network && !kept.has(o.chain)).map((o) => o.chain),
    rule: (comment) => isStale(comment, network, valid),
  };
}

/**
 * The container's chains under another network's name. The network was renamed, if what they lead
 * to is not an address that another of the container's interfaces has.
 */
function renamedChains(
  system: CniSystem,
  request: CniRequest,
  owners: readonly ChainOwner[],
): readonly string[] {
  const others = owners.filter(
    ({ containerId, network }) =>
      containerId === request.containerId && network !== request.config.name,
  );
  if (others.length === 0) return [];
  const elsewhere = addressesElsewhere(system, request);
  return others
    .filter(({ claims }) => !claims.some(({ target }) => elsewhere.has(target)))
    .map(({ chain }) => chain);
}

/** Addresses of the container on other interfaces than this attachment's. */
function addressesElsewhere(system: CniSystem, request: CniRequest): ReadonlySet<string> {
  using netns = openPodNetnsIfThere(request.netns);
  if (netns === undefined) return new Set();
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  const own = getLink(pod, request.ifName)?.index;
  const others = listAddresses(pod).filter(({ linkIndex }) => linkIndex !== own);
  return new Set(others.map(({ prefix }) => formatAddress(prefix.address)));
}
