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
 * @param others canonical, undefined while they are not known: then none is this host's to take. Asked
 *   only when a Service claims an address at all
 */
export function foreignAddresses(
  ports: Iterable<Pick<ProxiedPort, 'externalIPs' | 'loadBalancerIPs'>>,
  others: () => ReadonlySet<string> | undefined,
): readonly string[] {
  const claimed = new Set<string>();
  for (const { externalIPs, loadBalancerIPs } of ports) {
    for (const address of externalIPs) claimed.add(address);
    for (const address of loadBalancerIPs) claimed.add(address);
  }
  if (claimed.size === 0) return [];
  const known = others();
  return [...claimed].filter((address) => known?.has(address) !== false).toSorted();
}
