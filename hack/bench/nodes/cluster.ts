/** Up to 16,000 nodes with an IPv4 range each, all behind a router: one VXLAN peer each. */
export const selfName = 'node-0';

export interface BenchPeer {
  readonly name: string;
  readonly podCIDR: string;
  readonly podNetwork: string;
  readonly ip: string;
  readonly mac: string;
}

/** Node number `n` after so many changes of its MAC address. */
export function peerOf(n: number, change = 0): BenchPeer {
  const [high, low] = [n >> 8, n & 255];
  const podNetwork = `10.${high}.${low}.0`;
  const bytes = [2, change & 255, 0, 0, high, low];
  return {
    name: `node-${n}`,
    podNetwork,
    podCIDR: `${podNetwork}/24`,
    // Our own is on a link of its own; the others are reached through a router.
    ip:
      n === 0
        ? '192.168.0.1'
        : `172.${16 + (high >> 4)}.${((high & 15) << 4) | (low >> 4)}.${(low & 15) + 1}`,
    mac: bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':'),
  };
}

export function nodeAnnotations(ip: string, mac: string): Readonly<Record<string, string>> {
  return {
    'podwire.dev/backend-type': 'vxlan',
    'podwire.dev/backend-data': JSON.stringify({ VNI: 1, VtepMAC: mac }),
    'podwire.dev/public-ip': ip,
  };
}
