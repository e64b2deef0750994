/** A cluster of Services of all kinds that changes at random, the same way for the same seed. */
import type { EndpointSliceRecord, ServiceRecord } from '#pkg/kube/types.ts';
import { nodeName, p80, service, slice, type Cluster } from './records.ts';

/** Numbers from 0 below 1 (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface RandomChange extends Cluster {
  /** Keys of Services that are gone. */
  readonly gone: readonly string[];
}

export class RandomCluster {
  readonly services = new Map<string, ServiceRecord>();
  readonly slices = new Map<string, EndpointSliceRecord>();
  readonly #random: () => number;
  readonly #v6: boolean;
  #next = 0;

  constructor(seed: number, family: 'ip' | 'ip6' = 'ip') {
    this.#random = randomNumbers(seed);
    this.#v6 = family === 'ip6';
  }

  /** Some Services come, go, or get other endpoints, policies and addresses. */
  change(count: number): RandomChange {
    const services: ServiceRecord[] = [];
    const slices: EndpointSliceRecord[] = [];
    const gone = new Set<string>();
    for (let i = 0; i < count; i++) {
      const action = this.#random();
      const key = this.#pick([...this.services.keys()]);
      if (key === undefined || action < 0.4) {
        const fresh = this.#service(this.#next++);
        services.push(this.#keep(fresh));
        slices.push(this.#slice(`ns/${fresh.name}`));
      } else if (action < 0.6) {
        this.services.delete(key);
        gone.add(key);
      } else if (action < 0.8) {
        slices.push(this.#slice(key));
      } else {
        const n = Number(key.slice('ns/s'.length));
        services.push(this.#keep(this.#service(n)));
      }
    }
    return { services: services.filter((s) => !gone.has(`ns/${s.name}`)), slices, gone: [...gone] };
  }

  #keep(record: ServiceRecord): ServiceRecord {
    this.services.set(`ns/${record.name}`, record);
    return record;
  }

  /** No two Services have an address and port in common: what comes of that is undefined. */
  #service(n: number): ServiceRecord {
    const protocol = n % 3 === 0 ? 'UDP' : 'TCP';
    const type = this.#pick(['ClusterIP', 'NodePort', 'LoadBalancer'] as const) ?? 'ClusterIP';
    const nodePort = type === 'ClusterIP' ? 0 : 30_000 + n;
    const ranges = this.#v6 ? ['fd00:192::/64'] : ['192.168.0.0/24', '203.0.113.0/25'];
    return service(`ns/s${n}`, {
      type,
      // Neighbours and strays: some pages of the range are dense.
      clusterIPs: [this.#address(this.#v6 ? 'fd00:96::' : '172.30', n % 2 === 0 ? n : n * 97)],
      ports: [
        ...p80(nodePort, protocol),
        ...(n % 5 === 0 ? [{ name: 'q', protocol, port: 81, nodePort: 0 } as const] : []),
      ],
      externalIPs: this.#random() < 0.3 ? [this.#address(this.#v6 ? 'fd00:55::' : '198.51', n)] : [],
      loadBalancerIngress:
        type === 'LoadBalancer'
          ? [{ ip: this.#address(this.#v6 ? 'fd00:5::' : '192.0', n), ipMode: 'VIP' }]
          : [],
      loadBalancerSourceRanges: this.#random() < 0.5 ? ranges : [],
      externalTrafficPolicy: this.#pick(['Cluster', 'Local'] as const) ?? 'Cluster',
      internalTrafficPolicy: this.#random() < 0.2 ? 'Local' : 'Cluster',
      affinitySeconds: this.#random() < 0.2 ? 60 : 0,
      healthCheckNodePort: type === 'LoadBalancer' ? 40_000 + n : 0,
    });
  }

  #slice(key: string): EndpointSliceRecord {
    const count = Math.floor(this.#random() * 4);
    const endpoints = Array.from({ length: count }, () => ({
      address: this.#address(this.#v6 ? 'fd00:10::' : '10.180', Math.floor(this.#random() * 60_000)),
      terminating: this.#random() < 0.2,
      nodeName: this.#random() < 0.4 ? nodeName : 'other-node',
    }));
    const ports = (['TCP', 'UDP'] as const).flatMap((protocol) => [
      { name: 'p80', protocol, port: 8080 },
      { name: 'q', protocol, port: 8081 },
    ]);
    const addressType = this.#v6 ? 'IPv6' : 'IPv4';
    const record = slice(key, endpoints, { name: key.slice('ns/'.length), addressType, ports });
    this.slices.set(key, record);
    return record;
  }

  #address(net: string, n: number): string {
    return this.#v6 ? `${net}${(n & 0xffff).toString(16)}` : `${net}.${(n >> 8) & 255}.${n & 255}`;
  }

  #pick<T>(list: readonly T[]): T | undefined {
    return list[Math.floor(this.#random() * list.length)];
  }
}
