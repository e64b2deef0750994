/**
 * Makes the kernel load its connection tracking. As a module it may come only with the first rules
 * that need it, and until then its settings are not there to be written.
 */
import { maxPath } from '#pkg/conntrack/sysctls.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { NETLINK_NETFILTER } from '#pkg/netlink/constants.ts';
import { conntrackDump } from '#pkg/netlink/conntrack.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';

export interface ConntrackModule {
  isLoaded(): boolean;
  load(): Promise<void>;
}

const IPPROTO_UDP = 17;

const ofHost: ConntrackModule = {
  isLoaded: () => readSysctl(maxPath) !== undefined,
  load: async () => {
    using socket = new NetlinkSocket(await openSys(), NETLINK_NETFILTER);
    // The kernel loads what answers (net/netfilter/nfnetlink.c, request_module()). Nothing is tracked yet.
    const nothing = { protocol: IPPROTO_UDP, destinationPort: 1 };
    socket.dump(conntrackDump({ family: 'ip', direction: 'original', ...nothing }));
  },
};

/** Never rejects: a kernel without it has its settings refused, which is logged, and works. */
export async function loadConntrack(log: Logger, module: ConntrackModule = ofHost): Promise<void> {
  try {
    if (!module.isLoaded()) await module.load();
  } catch (err) {
    log.debug({ err }, 'Cannot load connection tracking');
  }
}
