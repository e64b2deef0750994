/** What host ports need of the host beside rules: localhost routed, old flows forgotten. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { formatAddress, parseAddress, sameAddress, type Address } from '#pkg/ip/address.ts';
import { listAddresses } from '#pkg/netlink/address.ts';
import { deleteConntrack, type ConntrackEntry } from '#pkg/netlink/conntrack.ts';
import { NETLINK_NETFILTER } from '#pkg/netlink/constants.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { routedLinkIndex } from '#pkg/netlink/route-lookup.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';
import type { HostPortClaim } from './host-port-claim.ts';
import { mappingsFor, specificHostIp, type PortmapWish } from './portmap-config.ts';
import type { RunNetfilter } from './run-netfilter.ts';

/**
 * With route_localnet the kernel takes packets to 127.0.0.0/8 from the wire too, and pods would
 * reach what listens on the host's localhost alone (CVE-2020-8558). Answers to connections from
 * there have that address again when they come to INPUT; new connections nobody has a right to.
 */
export function guardLocalhost(run: RunNetfilter): void {
  const rule =
    '-d 127.0.0.0/8 ! -i lo -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP'.split(' ');
  try {
    run('iptables', ['-w', '5', '-C', 'INPUT', ...rule]);
  } catch (error) {
    if (!isErrno(error, 'CommandFailed')) throw error;
    run('iptables', ['-w', '5', '-I', 'INPUT', '1', ...rule]);
  }
}

/**
 * Lets connections from 127.0.0.1 leave by the link that leads to the container, where the kernel
 * would drop them before they are masqueraded. There is no such setting for ::1: that cannot work.
 */
export function allowLocalhost(sys: Sys, container: Address): void {
  using host = new NetlinkSocket(sys);
  const index = routedLinkIndex(host, container);
  const link = index === undefined ? undefined : getLink(host, index);
  if (link === undefined) return;
  const setting = `net/ipv4/conf/${link.name}/route_localnet`;
  if (readSysctl(setting) !== '1') writeSysctl(setting, '1');
}

/**
 * Forgets flows to the ports that lead elsewhere: to a container that had them before, or to a
 * program of the host. TCP needs none of it: its connections end with who answered them.
 */
export function forgetFlowsTo(sys: Sys, wishes: readonly PortmapWish[]): void {
  const flows = wishes.flatMap((wish) =>
    mappingsFor(wish.config, wish.target.address.family).map((mapping) => ({
      protocol: mapping.protocol,
      hostPort: mapping.hostPort,
      hostIp: specificHostIp(mapping),
      target: wish.target.address,
    })),
  );
  if (!flows.some(({ protocol }) => protocolNumbers.has(protocol))) return;
  using host = new NetlinkSocket(sys);
  const local = listAddresses(host).map(({ prefix }) => prefix.address);
  const isFor = (flow: Flow, address: Address): boolean =>
    flow.hostIp === undefined
      ? isLoopback(address) || local.some((own) => sameAddress(own, address))
      : formatAddress(address) === flow.hostIp;
  forgetFlows(sys, flows, {
    direction: 'original',
    matches: (flow, { original, reply }) =>
      isFor(flow, original.destination) && !sameAddress(reply.source, flow.target),
  });
  // An answer that the host's program was just sending began a flow of its own, of which the next
  // packet to the port would be the answer. There is no more of these: no packet gets there now.
  forgetFlows(sys, flows, {
    direction: 'reply',
    matches: (flow, { reply }) => isFor(flow, reply.destination),
  });
}

/** Forgets flows that were translated to containers by ports they no longer have. */
export function forgetFlowsOf(sys: Sys, claims: readonly HostPortClaim[]): void {
  const flows = claims.map((claim) => ({ ...claim, target: parseAddress(claim.target) }));
  forgetFlows(sys, flows, {
    direction: 'original',
    matches: (flow, { reply }) => sameAddress(reply.source, flow.target),
  });
}

interface Flow {
  readonly protocol: string;
  readonly hostPort: number;
  readonly hostIp: string | undefined;
  readonly target: Address;
}

/** IPPROTO_* (include/uapi/linux/in.h) of protocols whose flows outlive who answers them. */
const protocolNumbers: ReadonlyMap<string, number> = new Map([
  ['udp', 17],
  ['sctp', 132],
]);

function forgetFlows(
  sys: Sys,
  flows: readonly Flow[],
  which: {
    readonly direction: 'original' | 'reply';
    readonly matches: (flow: Flow, entry: ConntrackEntry) => boolean;
  },
): void {
  const known = flows.flatMap((flow) => {
    const protocol = protocolNumbers.get(flow.protocol);
    return protocol === undefined ? [] : [{ flow, protocol }];
  });
  if (known.length === 0) return;
  using netfilter = new NetlinkSocket(sys, NETLINK_NETFILTER);
  for (const { flow, protocol } of known) {
    deleteConntrack(netfilter, {
      family: flow.target.family,
      protocol,
      destinationPort: flow.hostPort,
      direction: which.direction,
      matches: (entry) => which.matches(flow, entry),
    });
  }
}

/** 127.0.0.0/8; ::1 is an address of lo. */
function isLoopback(address: Address): boolean {
  return address.family === 'ip' && address.value >> 24n === 127n;
}
