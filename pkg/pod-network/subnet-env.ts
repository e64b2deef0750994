/**
 * flannel's `subnet.env`, by which Docker's start script and flannel's own CNI plugin learn of the
 * node's network (flannel pkg/subnet/subnet.go, WriteSubnetFile).
 */
import { addressPlus } from '#pkg/ip/address.ts';
import { formatPrefix, networkOf, tryParsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import type { LeasedSubnets } from './subnet-lease.ts';

export interface SubnetEnvFacts {
  /** The networks of all pods, at most one of each family. */
  readonly clusterCIDRs: readonly Prefix[];
  readonly podCIDRs: readonly Prefix[];
  readonly mtuBytes: number;
  /** Whether this daemon masquerades. flannel's CNI plugin does it otherwise. */
  readonly masquerade: boolean;
}

/** The text: equal facts give equal bytes. */
export function subnetEnvText(facts: SubnetEnvFacts): string {
  const lines: string[] = [];
  for (const [family, infix] of [
    ['ip', ''],
    ['ip6', 'IPV6_'],
  ] as const) {
    const network = facts.clusterCIDRs.find(({ address }) => address.family === family);
    const subnet = facts.podCIDRs.find(({ address }) => address.family === family);
    if (network !== undefined) lines.push(`FLANNEL_${infix}NETWORK=${formatPrefix(network)}`);
    if (subnet === undefined) continue;
    // The bridge's address, as Docker's --bip wants it.
    const gateway = { address: addressPlus(subnet.address, 1), length: subnet.length };
    lines.push(`FLANNEL_${infix}SUBNET=${formatPrefix(gateway)}`);
  }
  lines.push(`FLANNEL_MTU=${facts.mtuBytes}`, `FLANNEL_IPMASQ=${facts.masquerade}`);
  return `${lines.join('\n')}\n`;
}

/** The subnets in such a file, of this daemon or of flannel; undefined where there are none. */
export function parseSubnetEnv(text: string): LeasedSubnets | undefined {
  const subnetOf = (key: string): Prefix | undefined => {
    const value = new RegExp(`^${key}=(.*)$`, 'm').exec(text)?.[1] ?? '';
    const prefix = tryParsePrefix(value.trim().replaceAll(/^["']|["']$/g, ''));
    return prefix === undefined ? undefined : networkOf(prefix);
  };
  const ip = subnetOf('FLANNEL_SUBNET');
  return ip === undefined ? undefined : { ip, ip6: subnetOf('FLANNEL_IPV6_SUBNET') };
}
