/** What the ipvs renderer must know besides Services. */
import type { Family } from '#pkg/ip/address.ts';
import type { LocalDetector } from './local-detector.ts';
import type { ProxiedPort } from './proxied-port.ts';

export interface IpvsOptions {
  readonly family: Family;
  /** The kernel's name of a scheduler. */
  readonly scheduler: string;
  /** As ipvsadm takes them: "mh-port"; empty = none. */
  readonly schedulerFlags: string;
  /** Which bit of the packet mark asks for masquerade, 0-31. */
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  readonly localDetector: LocalDetector;
  /** Addresses node ports answer on, canonical, without loopback and link-local ones. */
  readonly nodePortAddresses: readonly string[];
  /**
   * Every address of the host but those of the device for Services, 127.0.0.0/8, ::1 and fe80::/10,
   * canonical.
   */
  readonly hostAddresses: readonly string[];
  /**
   * External addresses of Services that are other hosts' own, canonical and sorted: as this host's
   * they would cut those hosts off.
   */
  readonly foreignAddresses: readonly string[];
  /** The node's own address in this family, canonical; for loadBalancerSourceRanges. */
  readonly nodeAddress: string | undefined;
  /** The iptables here knows MASQUERADE --random-fully. */
  readonly randomFully: boolean;
}

/**
 * Of other hosts' addresses those that Services claim: so that others come and go without a word.
 *
 * @param others canonical
 */
export function foreignAddresses(
  ports: Iterable<Pick<ProxiedPort, 'externalIPs' | 'loadBalancerIPs'>>,
  others: ReadonlySet<string>,
): readonly string[] {
  if (others.size === 0) return [];
  const found = new Set<string>();
  for (const { externalIPs, loadBalancerIPs } of ports) {
    for (const address of externalIPs) if (others.has(address)) found.add(address);
    for (const address of loadBalancerIPs) if (others.has(address)) found.add(address);
  }
  return [...found].toSorted();
}
