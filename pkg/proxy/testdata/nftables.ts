/** The nftables mode's table of a test's cluster. */
import type { Table } from '#pkg/nftables/ruleset.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { nftablesTable } from '#pkg/proxy/nftables-ruleset.ts';
import { options, portsOf, type Cluster } from './records.ts';

export function nftablesOptions(fields: Partial<NftablesOptions> = {}): NftablesOptions {
  const family = fields.family ?? 'ip';
  const { localDetector, masqueradeAll, masqueradeBit, nodeAddress: own } = options({ family });
  return {
    family,
    masqueradeBit,
    masqueradeAll,
    localDetector,
    nodePortAddresses: own === undefined ? [] : [own],
    nodeAddress: own,
    serviceCIDRs: [],
    counters: 'none',
    ...fields,
  };
}

export function table(cluster: Cluster, fields: Partial<NftablesOptions> = {}): Table {
  const rendered = nftablesOptions(fields);
  return nftablesTable(portsOf(cluster, rendered.family), rendered);
}
