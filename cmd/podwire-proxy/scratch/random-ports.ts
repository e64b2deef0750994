/** Ports of random Services, few enough to meet again and to claim each other's addresses. */
import type { Family } from '#pkg/ip/address.ts';
import { networkOf, parsePrefix } from '#pkg/ip/prefix.ts';
import type { Endpoint } from '#pkg/proxy/endpoints.ts';
import { portKey, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { nodeName } from '#pkg/proxy/testdata/records.ts';
import { categorizeEndpoints } from '#pkg/proxy/topology.ts';

export interface Random {
  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number;
}

/** The same numbers for the same seed (mulberry32). */
export function createRandom(seed: number): Random {
  let state = seed;
  return {
    below: (limit) => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return (((t ^ (t >>> 14)) >>> 0) % limit) | 0;
    },
  };
}

/** A port and its key. Only few differ in key, so that most come again in another shape. */
export function randomPort(random: Random, family: Family): [string, ProxiedPort] {
  const v4 = family === 'ip';
  const name = `s${1 + random.below(8)}`;
  const flip = (): boolean => random.below(2) === 0;
  const some = (limit: number): number[] =>
    [0, 1, 2].slice(0, random.below(limit)).map(() => random.below(3));
  const external = (n: number): string => (v4 ? `192.0.2.${n + 1}` : `2001:db8::${n + 1}`);
  const range = (n: number): string =>
    v4 ? `10.${n}.0.0/${[16, 24, 8][n]}` : `fd00:${n + 1}::/${[32, 48, 16][n]}`;
  const port = {
    family,
    namespace: 'ns',
    name,
    portName: 'p',
    printName: `ns/${name}:p`,
    protocol: (['tcp', 'udp', 'sctp'] as const)[random.below(3)] ?? 'tcp',
    clusterIP: v4 ? `10.96.0.${name.slice(1)}` : `fd00:96::${name.slice(1)}`,
    port: 80 + random.below(2),
    nodePort: flip() ? 0 : 30_000 + random.below(4),
    // Shared between Services: they claim the same addresses.
    externalIPs: some(3).map(external),
    loadBalancerIPs: some(3).map((n) => external(n + 1)),
    sourceRanges: some(4).map((n) => networkOf(parsePrefix(range(n)))),
    internalPolicy: flip() ? ('Cluster' as const) : ('Local' as const),
    externalPolicy: flip() ? ('Cluster' as const) : ('Local' as const),
    affinitySeconds: flip() ? 0 : 10 + random.below(3),
    healthCheckNodePort: 0,
  };
  const endpoints = Array.from({ length: random.below(random.below(8) === 0 ? 40 : 5) }, (_, i) =>
    endpoint(
      v4 ? `10.1.${random.below(3)}.${i + 1}` : `fd00:10:${1 + random.below(3)}::${i + 1}`,
      random,
    ),
  );
  const categorized = categorizeEndpoints(endpoints, port, { name: nodeName, zone: undefined });
  return [portKey(port), { ...port, endpoints: categorized }];
}

function endpoint(address: string, random: Random): Endpoint {
  const terminating = random.below(4) === 0;
  return {
    target: `${address} 80`,
    address,
    port: 80,
    ready: !terminating && random.below(5) > 0,
    serving: true,
    terminating,
    local: random.below(3) === 0,
    zoneHints: [],
    nodeHints: [],
  };
}
