/** What the ipvs renderer must know besides Services. */
import type { Family } from '#pkg/ip/address.ts';
import type { LocalDetector } from './local-detector.ts';

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
  /** The node's own address in this family, canonical; for loadBalancerSourceRanges. */
  readonly nodeAddress: string | undefined;
  /** The iptables here knows MASQUERADE --random-fully. */
  readonly randomFully: boolean;
}
