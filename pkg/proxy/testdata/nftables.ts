/** The nftables mode's table of a test's cluster, and packets through it. */
import { tracePacket, type Packet } from '#pkg/nftables/tracer.ts';
import type { Table } from '#pkg/nftables/ruleset.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { nftablesTable } from '#pkg/proxy/nftables-ruleset.ts';
import { portKey } from '#pkg/proxy/proxied-port.ts';
import { nodeAddress, options, snapshot, type Cluster } from './records.ts';

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
  const { ports } = snapshot(cluster, rendered.family);
  return nftablesTable(new Map(ports.map((port) => [portKey(port), port])), rendered);
}

/** "10.1.1.1:80, 10.1.1.2:80 masqueraded", "reject", "drop" or "unmatched". */
export function traceNft(rules: Table, packet: Partial<Packet> & { to: string }): string {
  const [, bracketed, bare, port] = /^(?:\[(.+)\]|([^:]+)):(\d+)$/.exec(packet.to) ?? [];
  const outcomes = tracePacket(
    rules,
    {
      source: '10.0.0.2',
      protocol: 'tcp',
      destination: bracketed ?? bare ?? '',
      port: Number(port),
      ...packet,
    },
    { addresses: [nodeAddress, '192.168.1.2', 'fd00:192::2'] },
  );
  const texts = outcomes.map(({ verdict, endpoint, masqueraded }) => {
    if (verdict !== 'accept') return verdict;
    return endpoint === undefined ? 'unmatched' : `${endpoint}${masqueraded ? ' masqueraded' : ''}`;
  });
  return [...new Set(texts)].toSorted().join(', ');
}
