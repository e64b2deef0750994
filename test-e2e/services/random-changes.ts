/** Random changes of Services and their endpoints: the same seed makes the same changes. */
import type { ApiAccess } from '#pkg/embedded-api/access.ts';
import { createRandom, type Random } from '../cni/random.ts';

const namespace = 'chaos';
/** More Services than this are not made: what changes is what counts. */
const maxServices = 60;
const families = ['IPv4', 'IPv6'] as const;

interface Port {
  readonly name: string;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly port: number;
}

interface Known {
  readonly ports: readonly Port[];
  readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer';
}

export class RandomChanges {
  readonly #objects: ApiAccess;
  readonly #random: Random;
  readonly #services = new Map<string, Known>();
  /** How many of each kind were made. */
  readonly counts = { create: 0, delete: 0, change: 0, endpoints: 0 };
  #lastName = 0;

  constructor(objects: ApiAccess, seed: number) {
    this.#objects = objects;
    this.#random = createRandom(seed);
    objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
  }

  /** A number of milliseconds below `end`, from the same seed. */
  moment(end: number): number {
    return this.#random.below(end);
  }

  /** Makes one change. */
  change(): void {
    const known = [...this.#services];
    const dice = this.#random.next();
    if (known.length < 5 || (dice < 0.2 && known.length < maxServices)) this.#create();
    else if (dice < 0.3) this.#delete(this.#random.pick(known)[0]);
    else if (dice < 0.55) this.#alter(...this.#random.pick(known));
    else this.#putSlice(...this.#random.pick(known));
  }

  #create(): void {
    const random = this.#random;
    const number = (this.#lastName += 1);
    const name = `svc-${number}`;
    const address = `${number >> 8}.${number & 255}`;
    const addresses = [`10.97.${address}`, `fd00:97::${number.toString(16)}`];
    const clusterIPs = random.pick([addresses, addresses.slice(0, 1), addresses.slice(1)]);
    const type = random.pick(['ClusterIP', 'NodePort', 'LoadBalancer'] as const);
    const ports = Array.from({ length: 1 + random.below(3) }, (_, i): Port => {
      const protocol = random.pick(['TCP', 'TCP', 'UDP', 'SCTP'] as const);
      return { name: `p${i}`, protocol, port: 1 + random.below(3) + 10 * i };
    });
    this.#objects.create({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace, name },
      spec: {
        type,
        clusterIP: clusterIPs[0] ?? '',
        clusterIPs,
        ipFamilies: clusterIPs.map((ip) => (ip.includes(':') ? 'IPv6' : 'IPv4')),
        ipFamilyPolicy: clusterIPs.length === 2 ? 'RequireDualStack' : 'SingleStack',
        ports: ports.map((port) => ({ ...port })),
        ...this.#policies(type),
      },
    });
    this.#services.set(name, { ports, type });
    if (type === 'LoadBalancer') this.#setStatus(name);
    this.counts.create += 1;
    if (random.chance(0.7)) this.#putSlice(name, { ports, type });
  }

  #policies(type: Known['type']): Record<string, string | string[]> {
    const random = this.#random;
    const policy = (): string => random.pick(['Cluster', 'Local'] as const);
    const last = random.below(200);
    return {
      internalTrafficPolicy: policy(),
      sessionAffinity: random.pick(['None', 'ClientIP'] as const),
      externalIPs: random.chance(0.3) ? [`198.51.100.${last}`, `2001:db8:7::${last}`] : [],
      ...(type === 'ClusterIP' ? {} : { externalTrafficPolicy: policy() }),
      ...(type === 'LoadBalancer'
        ? { loadBalancerSourceRanges: random.chance(0.5) ? ['203.0.113.0/25'] : [] }
        : {}),
    };
  }

  #setStatus(name: string): void {
    const ip = `198.51.100.${200 + this.#random.below(50)}`;
    this.#objects.patch(
      { apiVersion: 'v1', kind: 'Service', namespace, name },
      'merge',
      { status: { loadBalancer: { ingress: [{ ip }] } } },
      { subresource: 'status' },
    );
  }

  #alter(name: string, known: Known): void {
    this.counts.change += 1;
    const ref = { apiVersion: 'v1', kind: 'Service', namespace, name };
    if (known.type === 'LoadBalancer' && this.#random.chance(0.3)) {
      this.#setStatus(name);
    } else if (this.#random.chance(0.2)) {
      // Another proxy's for a while.
      const proxy = this.#random.pick(['another', null]);
      const labels = { 'service.kubernetes.io/service-proxy-name': proxy };
      this.#objects.patch(ref, 'merge', { metadata: { labels } });
    } else {
      this.#objects.patch(ref, 'merge', { spec: this.#policies(known.type) });
    }
  }

  #putSlice(name: string, { ports }: Known): void {
    const random = this.#random;
    this.counts.endpoints += 1;
    const addressType = random.pick(families);
    const pods = Array.from({ length: random.below(6) }, () => 1 + random.below(40));
    this.#objects.apply({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        namespace,
        name: `${name}-${addressType.toLowerCase()}-${random.below(2)}`,
        labels: { 'kubernetes.io/service-name': name },
      },
      addressType,
      ports: ports.map((port) => ({ ...port, port: 8000 + port.port })),
      endpoints: [...new Set(pods)].map((pod) => {
        const ready = random.chance(0.7);
        const terminating = !ready && random.chance(0.5);
        return {
          addresses: [addressType === 'IPv4' ? `10.1.9.${pod}` : `fd00:10:9::${pod}`],
          conditions: { ready, serving: ready || random.chance(0.5), terminating },
          ...(random.chance(0.4) ? { nodeName: 'node-one' } : {}),
        };
      }),
    });
  }

  #delete(name: string): void {
    this.counts.delete += 1;
    this.#services.delete(name);
    this.#objects.delete({ apiVersion: 'v1', kind: 'Service', namespace, name });
    for (const { metadata } of this.#objects.list({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      namespace,
      labelSelector: `kubernetes.io/service-name=${name}`,
    }).items) {
      const ref = { apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', namespace };
      this.#objects.delete({ ...ref, name: metadata.name });
    }
  }
}
