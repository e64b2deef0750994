/** What mode ipvs writes for a test's cluster, and a packet's way through it without a kernel. */
import { parseAddress } from '#pkg/ip/address.ts';
import type { Outcome, TraceHost } from '#pkg/ip/packet-trace.ts';
import { containsAddress, hostPrefix, parsePrefix } from '#pkg/ip/prefix.ts';
import type { IpSet } from '#pkg/ipset/ip-set.ts';
import { renderIpSets } from '#pkg/ipset/render.ts';
import { renderSave } from '#pkg/iptables/render.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import type { InSet } from '#pkg/iptables/tracer-match.ts';
import { tracePacket, type Packet } from '#pkg/iptables/tracer.ts';
import { renderVirtualServers } from '#pkg/ipvs/render.ts';
import { serverKey, type IpvsProtocol, type VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import { IpvsBook } from '#pkg/proxy/ipvs-book.ts';
import type { IpvsOptions } from '#pkg/proxy/ipvs-options.ts';
import { ipvsRuleset } from '#pkg/proxy/ipvs-rules.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { places } from './places.ts';
import { options } from './records.ts';

export interface IpvsRules {
  readonly ruleset: Ruleset;
  readonly servers: ReadonlyMap<string, VirtualServer>;
  readonly sets: readonly IpSet[];
  /** On the device for Services. */
  readonly addresses: ReadonlySet<string>;
}

export function ipvsOptions(fields: Partial<IpvsOptions> = {}): IpvsOptions {
  const family = fields.family ?? 'ip';
  const { localDetector, masqueradeAll, masqueradeBit, nodeAddress } = options({ family });
  const { neighbour, node, second } = places[family];
  return {
    family,
    scheduler: 'rr',
    schedulerFlags: '',
    masqueradeBit,
    masqueradeAll,
    localDetector,
    nodePortAddresses: [node, second],
    hostAddresses: [node, second],
    foreignAddresses: [neighbour],
    nodeAddress,
    randomFully: true,
    ...fields,
  };
}

export function ipvsRules(
  ports: ReadonlyMap<string, ProxiedPort>,
  fields: Partial<IpvsOptions> = {},
): IpvsRules {
  const rendered = ipvsOptions(fields);
  const book = new IpvsBook(rendered);
  book.update(ports, ports.keys());
  return {
    ruleset: ipvsRuleset(rendered),
    servers: book.servers(),
    sets: book.sets(),
    addresses: book.addresses(),
  };
}

export function isIpvs(rules: object): rules is IpvsRules {
  return 'servers' in rules;
}

export function writtenIpvs({ ruleset, servers, sets }: IpvsRules): string {
  return [renderSave(ruleset), renderIpSets(sets), renderVirtualServers(servers.values())].join('');
}

export function traceIpvs(rules: IpvsRules, packet: Packet, host: TraceHost): Outcome[] {
  const kinds = new Map(rules.sets.map((set) => [set.name, set]));
  const inSet: InSet = (name, flags, of) => {
    const set = kinds.get(name);
    if (set === undefined) throw new Error(`There is no set ${name}`);
    const words = flags.map((flag) => (flag === 'src' ? of.source : of.destination));
    const at = `${words[0]},${of.protocol}:${of.port}`;
    switch (set.type) {
      case 'hash:ip':
        return set.members.has(words[0] ?? '');
      case 'hash:ip,port':
        return set.members.has(at);
      case 'hash:ip,port,ip':
        return set.members.has(`${at},${words[2]}`);
      case 'hash:ip,port,net':
        return [...set.members].some(
          (member) => member.startsWith(`${at},`) && isIn(member.slice(at.length + 1), words[2]),
        );
      case 'bitmap:port':
        // net/netfilter/ipset/ip_set_getport.c, ip_set_get_ip_port(): no others.
        return ['tcp', 'udp'].includes(of.protocol) && set.members.has(String(of.port));
    }
  };
  const endpoints = (of: { protocol: string; destination: string; port: number }) => {
    const { destination: address, port } = of;
    const protocol = of.protocol as IpvsProtocol;
    return rules.servers.get(serverKey({ protocol, address, port }))?.realServers;
  };
  const addresses = [...host.addresses, ...rules.addresses];
  return tracePacket(rules.ruleset, packet, { addresses }, { inSet, endpoints });
}

function isIn(range: string, ip = ''): boolean {
  const prefix = range.includes('/') ? parsePrefix(range) : hostPrefix(parseAddress(range));
  return containsAddress(prefix, parseAddress(ip));
}
