/** The loopback plugin: `lo` of a container up, with the addresses it then has. */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readPrevResult } from '#pkg/cni/config.ts';
import type { CniPlugin } from '#pkg/cni/plugin.ts';
import { emptyDns, type CniResult } from '#pkg/cni/result.ts';
import { changeLink } from '#pkg/netlink/link-change.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';
import type { CniSystem } from '#plugins/cni-system.ts';

/** Whatever CNI_IFNAME says: a namespace has one loopback device, and it is `lo`. */
const lo = 'lo';

export function loopbackPlugin(system: CniSystem): CniPlugin {
  return {
    about: 'Podwire loopback: the lo interface of a container',
    add: (request) => {
      const hasIp6 = setLo(system, request.netns, true);
      return readPrevResult(request.config) ?? loopbackResult(request.netns, hasIp6);
    },
    del: (request) => {
      if (request.netns === undefined) return;
      try {
        setLo(system, request.netns, false);
      } catch (error) {
        // Gone with its lo, or what a reboot left of its path.
        if (!isErrno(error, 'NetnsMissing') && !isErrno(error, 'NetnsInvalid')) throw error;
      }
    },
    check: (request) => {
      const up = inside(system, request.netns, (socket) => getLink(socket, lo)?.up);
      if (up !== true) throw new AgentError('LinkDown', 'Cannot confirm loopback: lo is down');
    },
  };
}

/** Sets `lo` up or down; whether the namespace has IPv6 on it. */
function setLo(system: CniSystem, netns: string, up: boolean): boolean {
  return inside(system, netns, (socket) => {
    changeLink(socket, lo, { up });
    return readSysctl('net/ipv6/conf/lo/disable_ipv6') === '0';
  });
}

function inside<T extends boolean | undefined>(
  system: CniSystem,
  netns: string,
  fn: (socket: NetlinkSocket) => T,
): T {
  const run = (): boolean | undefined => {
    using socket = new NetlinkSocket(system.sys);
    return fn(socket);
  };
  try {
    return withNetns(system.sys, netns, run, system.die) as T;
  } catch (cause) {
    if (!isErrno(cause, 'NetnsMissing') && !isErrno(cause, 'NetnsInvalid')) throw cause;
    throw new CniError(cniCode.invalidNetns, `failed to open netns "${netns}"`, { cause });
  }
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
