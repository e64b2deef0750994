/** What the proxy reads and sets on its host besides rules. */
import { networkInterfaces } from 'node:os';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';

export interface ProxyHost {
  /** Every address of the host, canonical. */
  addresses(): readonly string[];
  /** net.netfilter.nf_conntrack_tcp_be_liberal is set. */
  conntrackLiberal(): boolean;
  /**
   * Lets packets from 127.0.0.1 leave through a translation, which node ports on 127.0.0.1 need.
   * Throws where the kernel refuses.
   */
  allowRouteLocalnet(): void;
}

const liberal = 'net/netfilter/nf_conntrack_tcp_be_liberal';
const routeLocalnet = 'net/ipv4/conf/all/route_localnet';

export const proxyHost: ProxyHost = {
  addresses: () =>
    Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((a) => a.address)),
  conntrackLiberal: () => {
    try {
      return (readSysctl(liberal) ?? '0') !== '0';
    } catch (error) {
      if (isErrno(error, 'EACCES')) return false;
      throw error;
    }
  },
  allowRouteLocalnet: () => {
    if (readSysctl(routeLocalnet) !== '1') writeSysctl(routeLocalnet, '1');
  },
};
