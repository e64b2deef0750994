/** What the nftables renderer must know besides Services. */
import type { Family } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import type { LocalDetector } from './local-detector.ts';

/**
 * What is counted: nothing; new connections of each Service and packets that found no endpoint; the
 * connections of each endpoint as well.
 */
export type NftablesCounters = 'none' | 'services' | 'endpoints';

export interface NftablesOptions {
  readonly family: Family;
  /** Which bit of the packet mark asks for masquerade, 0-31. */
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  readonly localDetector: LocalDetector;
  /** Addresses node ports answer on, canonical; 'all' = every address of the host but loopback. */
  readonly nodePortAddresses: 'all' | readonly string[];
  /** The node's own address in this family, canonical; for loadBalancerSourceRanges. */
  readonly nodeAddress: string | undefined;
  /** Ranges cluster addresses are taken from: what is in them and not in use is dropped. */
  readonly serviceCIDRs: readonly Prefix[];
  readonly counters: NftablesCounters;
}

/** "0x4000": the only bit of the mark we look at and change. */
export function markBit(options: Pick<NftablesOptions, 'masqueradeBit'>): string {
  return `0x${(2 ** options.masqueradeBit).toString(16)}`;
}
