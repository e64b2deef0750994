/** What becomes of a packet by the rules of a mode, in one line. */
import type { FirstPacket, Outcome } from '#pkg/ip/packet-trace.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import { tracePacket as traceIptables, type Packet } from '#pkg/iptables/tracer.ts';
import type { Table } from '#pkg/nftables/ruleset.ts';
import { tracePacket as traceNftables } from '#pkg/nftables/tracer.ts';
import { isIpvs, traceIpvs, type IpvsRules } from './ipvs-trace.ts';
import { places } from './places.ts';

/** From a pod by TCP if nothing else is said; `to` is "192.0.2.1:80" or "[2001:db8::1]:80". */
export type TracedPacket = Partial<Omit<Packet, 'destination' | 'port'>> & { readonly to: string };

const host = {
  addresses: Object.values(places).flatMap(({ node, second }) => [node, second]),
};

/** "10.1.1.1:80, 10.1.1.2:80 masqueraded", "reject", "drop" or "unmatched". */
export function trace(rules: TracedRules, packet: TracedPacket): string {
  return outcomes(rules, packet)
    .map(textOf)
    .filter((text, i, all) => all.indexOf(text) === i)
    .toSorted()
    .join(', ');
}

export type TracedRules = Ruleset | Table | IpvsRules;

function outcomes(rules: TracedRules, packet: TracedPacket): Outcome[] {
  if (isIpvs(rules)) return traceIpvs(rules, packetOf(packet), host);
  return 'tables' in rules
    ? traceIptables(rules, packetOf(packet), host)
    : traceNftables(rules, packetOf(packet), host);
}

function packetOf({ to, ...packet }: TracedPacket): Packet & FirstPacket {
  const [, bracketed, bare, port] = /^(?:\[(.+)\]|([^:]+)):(\d+)$/.exec(to) ?? [];
  const destination = bracketed ?? bare;
  if (destination === undefined) throw new Error(`"${to}" is not an address and a port`);
  return {
    source: places.ip.pod,
    protocol: 'tcp',
    ...packet,
    destination,
    port: Number(port),
  };
}

function textOf({ verdict, endpoint, masqueraded }: Outcome): string {
  if (verdict !== 'accept') return verdict;
  return endpoint === undefined ? 'unmatched' : `${endpoint}${masqueraded ? ' masqueraded' : ''}`;
}
