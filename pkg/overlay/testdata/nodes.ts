/** The cluster that the backends' tests speak of. */
import type { HostObject } from '#pkg/host-network/object.ts';
import { formatAddress, parseAddress } from '#pkg/ip/address.ts';
import { formatPrefix, parsePrefix } from '#pkg/ip/prefix.ts';
import type { Announcement } from '#pkg/overlay/annotations.ts';
import type { SelfNode } from '#pkg/overlay/backend.ts';
import type { NodeFacts } from '#pkg/overlay/node-facts.ts';

export const self: SelfNode = {
  name: 'a',
  uid: 'uid-a',
  podCIDRs: { ip: parsePrefix('10.244.1.0/24'), ip6: parsePrefix('fd00:10:244:1::/64') },
  underlay: {
    link: 'eth0',
    mtuBytes: 1500,
    addresses: { ip: parseAddress('192.168.1.1'), ip6: parseAddress('fd00:1::1') },
    onLinkPrefixes: [parsePrefix('192.168.1.0/24'), parsePrefix('fd00:1::/64')],
    routedPrefixes: [],
  },
};
export const onlyIp4 = { ...self, podCIDRs: { ip: parsePrefix('10.244.1.0/24') } };
export const onlyIp6 = { ...self, podCIDRs: { ip6: parsePrefix('fd00:10:244:1::/64') } };

export function announce(backend: string, ip: string, mac?: string): Announcement {
  const publicIP = parseAddress(ip);
  return mac === undefined ? { backend, publicIP } : { backend, publicIP, vtep: { vni: 1, mac } };
}

/** A dual-stack vxlan node: `n` numbers its pod ranges and MACs, `subnet` is where it stands. */
export function peer(name: string, n: number, subnet = 2): NodeFacts {
  const [ip, ip6] = [`192.168.${subnet}.${n}`, `fd00:${subnet}::${n}`];
  return {
    name,
    uid: `uid-${name}`,
    podCIDRs: { ip: parsePrefix(`10.244.${n}.0/24`), ip6: parsePrefix(`fd00:10:244:${n}::/64`) },
    internalIPs: [parseAddress(ip), parseAddress(ip6)],
    announcements: {
      ip: announce('vxlan', ip, `02:00:00:00:04:0${n}`),
      ip6: announce('vxlan', ip6, `02:00:00:00:06:0${n}`),
    },
  };
}

export const same = (name: string, n: number): NodeFacts => peer(name, n, 1);

/** Objects as the `ip` and `bridge` commands would say them. */
export function spell(objects: readonly HostObject[]): string[] {
  return objects.map((o) => {
    switch (o.kind) {
      case 'vxlan':
        return `link ${o.link} vni ${o.vni} port ${o.port} mtu ${o.mtuBytes} mac ${o.mac} local ${formatAddress(o.local)} dev ${o.underlay}`;
      case 'address':
        return `addr ${formatPrefix(o.prefix)} dev ${o.link}`;
      case 'route':
        return `route ${formatPrefix(o.destination)}${o.via === undefined ? '' : ` via ${formatAddress(o.via)}`} dev ${o.link}${o.onLink ? ' onlink' : ''}${o.encap === undefined ? '' : ` src ${formatAddress(o.encap.local)} dst ${formatAddress(o.encap.remote)}`}`;
      case 'neighbor':
        return `neigh ${formatAddress(o.address)} lladdr ${o.mac} dev ${o.link}`;
      case 'fdb':
        return `fdb ${o.mac} dst ${formatAddress(o.remote)} dev ${o.link}`;
      case 'sysctl':
        return `sysctl ${o.path}=${o.value}`;
      case 'tunnel':
        return `link ${o.link} mtu ${o.mtuBytes} ${o.local === undefined ? 'external' : `local ${formatAddress(o.local)}`}`;
      case 'tun':
        return `link ${o.link} mtu ${o.mtuBytes}`;
      case 'wireguard':
        return `link ${o.link} mtu ${o.mtuBytes} port ${o.port} key ${o.publicKey}`;
      case 'wireguard-peer': {
        const { address, port } = o.endpoint ?? {};
        const at = address === undefined ? 'nowhere' : `${formatAddress(address)} ${port}`;
        return `peer ${o.publicKey} at ${at} ips ${o.allowedIPs.map(formatPrefix).join()} dev ${o.link}`;
      }
    }
  });
}

