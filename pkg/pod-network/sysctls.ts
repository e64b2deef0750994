/** What the kernel must be told so that it carries packets between pods and the outside. */
import type { HostObject, Sysctl } from '#pkg/host-network/object.ts';
import type { Family } from '#pkg/ip/address.ts';
import { familyOf } from '#pkg/ip/prefix.ts';

/** A link on which forwarding can take the host's own IPv6 routes away. */
export interface AdvertisedLink {
  readonly link: string;
  /** net/ipv6/conf/LINK/accept_ra; undefined = absent. */
  readonly acceptRa: string | undefined;
}

/** The sysctls for forwarding in these families. */
export function forwardingSysctls(
  families: readonly Family[],
  advertised: readonly AdvertisedLink[],
): readonly Sysctl[] {
  const objects: Sysctl[] = [];
  if (families.includes('ip')) {
    objects.push(
      sysctl('net/ipv4/ip_forward', '1'),
      bridgeSysctl('net/bridge/bridge-nf-call-iptables'),
    );
  }
  if (families.includes('ip6')) {
    // A host that got its own IPv6 route by router advertisement loses it the moment it forwards,
    // unless accept_ra is 2 (ip-sysctl.rst): before forwarding, therefore first.
    for (const { link, acceptRa } of advertised) {
      if (acceptRa !== '1' && acceptRa !== '2') continue;
      objects.push(sysctl(`net/ipv6/conf/${link}/accept_ra`, '2'));
    }
    objects.push(
      sysctl('net/ipv6/conf/all/forwarding', '1'),
      bridgeSysctl('net/bridge/bridge-nf-call-ip6tables'),
    );
  }
  return objects;
}

/**
 * IPv6 on each device that gets an address of it: many hosts turn it off for links that are new
 * (net.ipv6.conf.default.disable_ipv6), and the kernel then refuses addresses.
 */
export function addressSysctls(objects: readonly HostObject[]): readonly Sysctl[] {
  const links = objects.flatMap((object) =>
    object.kind === 'address' && familyOf(object.prefix) === 'ip6' ? [object.link] : [],
  );
  return [...new Set(links)].map((link) => sysctl(`net/ipv6/conf/${link}/disable_ipv6`, '0'));
}

function sysctl(path: string, value: string): Sysctl {
  return { kind: 'sysctl', path, value, optional: false };
}

/**
 * Makes bridged packets pass conntrack: a Service's answer between two pods of one bridge would
 * otherwise never meet the NAT that has to be undone. Absent without the module br_netfilter, as
 * when the bridge does not need it.
 */
function bridgeSysctl(path: string): Sysctl {
  return { kind: 'sysctl', path, value: '1', optional: true };
}
