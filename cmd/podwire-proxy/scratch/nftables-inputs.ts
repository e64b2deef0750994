/** What tests give the nftables mode's writer. */
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { nftablesOptions } from '#pkg/proxy/testdata/nftables.ts';
import { podDetector } from '#pkg/proxy/testdata/packet-services.ts';

export const quietLog = { debug: nothing, info: nothing, warn: nothing, error: nothing };

/** For the pods of a small cluster, and node ports on every address. */
export function nftablesTestOptions(options: Partial<NftablesOptions> = {}): NftablesOptions {
  return nftablesOptions({
    localDetector: podDetector,
    nodePortAddresses: 'all',
    nodeAddress: undefined,
    counters: 'services',
    ...options,
  });
}

function nothing(): void {
  // These tests look at the kernel, not at the log.
}
