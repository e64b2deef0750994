/** Clusters made at random: every mode treats every packet the same, but for what is on purpose. */
import { expect, it } from 'vitest';
import { families, type Family } from '#pkg/ip/address.ts';
import { iptablesRuleset } from './iptables-ruleset.ts';
import { nftablesTable } from './nftables-ruleset.ts';
import { portKey, type ProxiedPort } from './proxied-port.ts';
import { ServiceModel } from './service-model.ts';
import { ipvsRules } from './testdata/ipvs-trace.ts';
import { nftablesOptions } from './testdata/nftables.ts';
import { places } from './testdata/places.ts';
import { RandomCluster } from './testdata/random-cluster.ts';
import { asChanges, at, nodeName, options } from './testdata/records.ts';
import { trace, type TracedPacket } from './testdata/traces.ts';

const cases = families.flatMap((family) => [1, 2].map((seed) => [family, seed] as const));

it.each(cases)('%s, seed %i', (family, seed) => {
  const ports = randomPorts(seed, family);
  const { node } = places[family];
  const compatible = iptablesRuleset(ports, options({ family }));
  const tree = iptablesRuleset(ports, options({ family, layout: 'tree' }));
  const nftables = nftablesTable(
    new Map(ports.map((port) => [portKey(port), port])),
    nftablesOptions({ family, nodePortAddresses: 'all' }),
  );
  const ipvs = ipvsRules(new Map(ports.map((port) => [portKey(port), port])), { family });
  const names = tree.tables.flatMap(({ chains }) => [...chains.keys()]);
  expect(names.filter((name) => name.startsWith('KUBE-SVT-')).length).toBeGreaterThan(5);
  const clusterIPs = new Set(ports.map((port) => port.clusterIP));

  /** A packet that iptables mode leaves alone, and nftables mode knows to be in vain. */
  const isInVain = ({ source }: TracedPacket, ip: string, port: ProxiedPort): boolean => {
    const beyond = [...port.externalIPs, ...port.loadBalancerIPs];
    return clusterIPs.has(ip) || (source === node && beyond.includes(ip) && !port.endpoints.hasAny);
  };

  /** What mode ipvs does otherwise: a virtual server has one list of endpoints, whoever asks. */
  const inIpvs = (
    verdict: string,
    { source }: TracedPacket,
    ip: string,
    port: ProxiedPort,
  ): string => {
    // The filter does not see what the host itself sends to virtual servers.
    const { loadBalancerIPs, sourceRanges } = port;
    const isGuarded = sourceRanges.length > 0 && loadBalancerIPs.includes(ip);
    if (isGuarded && source === node && verdict === 'drop') return 'not guarded';
    const { local } = port.endpoints;
    if (!verdict.includes(':') || clusterIPs.has(ip)) return verdict;
    if (port.externalPolicy === 'Cluster' || local.length === 0) return verdict;
    const isMasqueraded = verdict.split(', ').every((way) => way.endsWith(' masqueraded'));
    return local
      .map(({ address, port: number }) => {
        const isMarked = isMasqueraded || address === source;
        return `${at(address, number)}${isMarked ? ' masqueraded' : ''}`;
      })
      .toSorted()
      .join(', ');
  };

  const fates = new Set<string>();
  for (const port of ports) {
    for (const [ip, number] of targetsOf(port, node)) {
      for (const source of sourcesOf(port, family)) {
        const packet = { to: at(ip, number), source, protocol: port.protocol };
        const verdict = trace(compatible, packet);
        const unlike = verdict === 'unmatched' && isInVain(packet, ip, port) ? 'reject' : verdict;
        expect([packet, trace(tree, packet), trace(nftables, packet)]).toEqual([
          packet,
          verdict,
          unlike,
        ]);
        const wanted = inIpvs(unlike, packet, ip, port);
        if (wanted !== 'not guarded') {
          expect([packet, trace(ipvs, packet)]).toEqual([packet, wanted]);
        }
        fates.add(unlike.replaceAll(/[\d.:[\]a-f]+:\d+/g, 'endpoint'));
      }
    }
  }
  // Nothing is shown when all packets have one fate.
  expect(fates.size).toBeGreaterThan(5);
});

function randomPorts(seed: number, family: Family): ProxiedPort[] {
  const model = new ServiceModel(family, { name: nodeName, zone: undefined });
  const { gone, ...news } = new RandomCluster(seed, family).change(110);
  const changes = asChanges(news);
  const services = [...changes.services, ...gone.map((key) => ({ key, new: undefined }))];
  model.update({ ...changes, services });
  return [...model.ports.values()];
}

function targetsOf(port: ProxiedPort, node: string): (readonly [ip: string, port: number])[] {
  const { clusterIP, externalIPs, loadBalancerIPs, nodePort } = port;
  return [
    ...[clusterIP, ...externalIPs, ...loadBalancerIPs].map((ip) => [ip, port.port] as const),
    ...(nodePort === 0 ? [] : [[node, nodePort] as const]),
    [clusterIP, 9],
    [nextTo(clusterIP), port.port],
  ];
}

/** Who asks; among them an endpoint of this node, if there is one. */
function sourcesOf(port: ProxiedPort, family: Family): string[] {
  const { pod, node, outside, blocked } = places[family];
  const self = port.endpoints.reachable.find(({ local }) => local)?.address;
  return [pod, node, outside, blocked, ...(self === undefined ? [] : [self])];
}

function nextTo(ip: string): string {
  return ip.includes(':') ? `${ip}0` : ip.replace(/\d+$/, (last) => `${(Number(last) + 1) % 256}`);
}
