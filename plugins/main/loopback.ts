/** The loopback plugin: `lo` of a container up, with the addresses it then has. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { readPrevResult } from '#pkg/cni/config.ts';
import type { CniPlugin } from '#pkg/cni/plugin.ts';
import { emptyDns, type CniResult } from '#pkg/cni/result.ts';
import { changeLink } from '#pkg/netlink/link-change.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns, type Netns } from '#pkg/netns/netns.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { openPodNetns, openPodNetnsIfThere } from '#plugins/pod-netns.ts';

/** Whatever CNI_IFNAME says: a namespace has one loopback device, and it is `lo`. */
const lo = 'lo';

/** `type: loopback`, as the reference plugin of this name. */
export function loopbackPlugin(system: CniSystem): CniPlugin {
  return {
    about: 'Podwire loopback: the lo interface of a container',
    add: (request) => {
      using netns = openPodNetns(request.netns);
      const hasIp6 = setLo(system, netns, true);
      return readPrevResult(request.config) ?? loopbackResult(request.netns, hasIp6);
    },
    del: (request) => {
      using netns = openPodNetnsIfThere(request.netns);
      if (netns !== undefined) setLo(system, netns, false);
    },
    check: (request) => {
      using netns = openPodNetns(request.netns);
      const up = inside(system, netns, (socket) => getLink(socket, lo)?.up === true);
      if (!up) throw new AgentError('LinkDown', 'Cannot confirm loopback: lo is down');
    },
  };
}

/** Sets `lo` up or down; whether the namespace has IPv6 on it. */
function setLo(system: CniSystem, netns: Netns, up: boolean): boolean {
  return inside(system, netns, (socket) => {
    changeLink(socket, lo, { up });
    return readSysctl('net/ipv6/conf/lo/disable_ipv6') === '0';
  });
}

function inside(
  { sys, die }: CniSystem,
  netns: Netns,
  fn: (socket: NetlinkSocket) => boolean,
): boolean {
  const run = (): boolean => {
    using socket = new NetlinkSocket(sys);
    return fn(socket);
  };
  return withNetns(sys, netns.fd, run, die);
}

function loopbackResult(sandbox: string, hasIp6: boolean): CniResult {
  const addresses = ['127.0.0.1/8', ...(hasIp6 ? ['::1/128'] : [])];
  return {
    interfaces: [{ name: lo, mac: '00:00:00:00:00:00', sandbox }],
    ips: addresses.map((text) => ({ address: parsePrefix(text), interfaceIndex: 0 })),
    routes: [],
    dns: emptyDns,
  };
}
