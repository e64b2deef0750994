/**
 * The proxy's domain model over time: the ports of one family, kept in step with Services and
 * EndpointSlices at the cost of what changed and not of the cluster. Holds no clock and no socket;
 * equal histories give equal models.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Family } from '#pkg/ip/address.ts';
import type { Change } from '#pkg/kube/store.ts';
import { objectKey, type EndpointSliceRecord, type ServiceRecord } from '#pkg/kube/types.ts';
import { indexEndpoints } from './endpoints.ts';
import { servicePorts } from './service-port.ts';
import { portKey, type Problem, type ProxiedPort } from './proxied-port.ts';
import { categorizeEndpoints, type NodeTopology } from './topology.ts';

/** A port that is not what it was; one of the two is undefined when it came or went. */
export interface PortChange {
  /** {@link portKey} */
  readonly key: string;
  readonly old: ProxiedPort | undefined;
  readonly new: ProxiedPort | undefined;
}

/** What changed in the API since the last update, as stores tell it. */
export interface ModelInput {
  readonly services: readonly Pick<Change<ServiceRecord>, 'key' | 'new'>[];
  readonly slices: readonly Pick<Change<EndpointSliceRecord>, 'key' | 'new'>[];
}

export class ServiceModel {
  readonly family: Family;
  #node: NodeTopology;
  readonly #services = new Map<string, ServiceRecord>();
  /** By Service, then by slice. A slice may come before its Service. */
  readonly #slices = new Map<string, Map<string, EndpointSliceRecord>>();
  readonly #ownerOfSlice = new Map<string, string>();
  readonly #ports = new Map<string, ProxiedPort>();
  readonly #portsOf = new Map<string, readonly string[]>();
  readonly #problems = new Map<string, readonly Problem[]>();

  constructor(family: Family, node: NodeTopology) {
    this.family = family;
    this.#node = node;
  }

  /** All ports by {@link portKey}, in no promised order; changes with the next update. */
  get ports(): ReadonlyMap<string, ProxiedPort> {
    return this.#ports;
  }

  get problems(): readonly Problem[] {
    return [...this.#problems.values()].flat();
  }

  /** Takes in what changed and tells which ports are now different, each once. */
  update(input: ModelInput): readonly PortChange[] {
    const dirty = new Set<string>();
    for (const { key, new: service } of input.services) {
      if (service === undefined) this.#services.delete(key);
      else this.#services.set(key, service);
      dirty.add(key);
    }
    for (const { key, new: slice } of input.slices) {
      for (const owner of this.#putSlice(key, slice)) dirty.add(owner);
    }
    return [...dirty].flatMap((service) => this.#refresh(service));
  }

  /** The node got another zone: hints mean something else now. */
  moveNode(node: NodeTopology): readonly PortChange[] {
    if (isDeepStrictEqual(node, this.#node)) return [];
    this.#node = node;
    return [...this.#services.keys()].flatMap((service) => this.#refresh(service));
  }

  /** Owners before and after: the label that names the Service can change. */
  #putSlice(key: string, slice: EndpointSliceRecord | undefined): readonly string[] {
    const owners = new Set<string>();
    const previous = this.#ownerOfSlice.get(key);
    if (previous !== undefined) {
      owners.add(previous);
      const siblings = this.#slices.get(previous);
      siblings?.delete(key);
      if (siblings?.size === 0) this.#slices.delete(previous);
      this.#ownerOfSlice.delete(key);
    }
    const ofOtherFamily = slice?.addressType !== (this.family === 'ip' ? 'IPv4' : 'IPv6');
    if (slice === undefined || slice.serviceName === '' || ofOtherFamily) return [...owners];
    const owner = objectKey({ namespace: slice.namespace, name: slice.serviceName });
    const siblings = this.#slices.get(owner) ?? new Map<string, EndpointSliceRecord>();
    this.#slices.set(owner, siblings.set(key, slice));
    this.#ownerOfSlice.set(key, owner);
    return [...owners.add(owner)];
  }

  #refresh(serviceKey: string): PortChange[] {
    const { ports, problems } = this.#evaluate(serviceKey);
    if (problems.length === 0) this.#problems.delete(serviceKey);
    else this.#problems.set(serviceKey, problems);
    const changes: PortChange[] = [];
    for (const key of this.#portsOf.get(serviceKey) ?? []) {
      if (ports.has(key)) continue;
      changes.push({ key, old: this.#ports.get(key), new: undefined });
      this.#ports.delete(key);
    }
    for (const [key, port] of ports) {
      const old = this.#ports.get(key);
      if (old !== undefined && isDeepStrictEqual(old, port)) continue;
      changes.push({ key, old, new: port });
      this.#ports.set(key, port);
    }
    if (ports.size === 0) this.#portsOf.delete(serviceKey);
    else this.#portsOf.set(serviceKey, [...ports.keys()]);
    return changes;
  }

  #evaluate(serviceKey: string): {
    readonly ports: ReadonlyMap<string, ProxiedPort>;
    readonly problems: readonly Problem[];
  } {
    const ports = new Map<string, ProxiedPort>();
    const slices = this.#slices.get(serviceKey)?.values() ?? [];
    const endpoints = indexEndpoints(slices, this.family, this.#node.name);
    const problems: Problem[] = endpoints.problems.map(({ slice, problem }) => ({
      kind: 'EndpointSlice',
      object: objectKey(slice),
      problem,
    }));
    const service = this.#services.get(serviceKey);
    if (service === undefined) return { ports, problems };
    const found = servicePorts(service, this.family);
    for (const problem of found.problems) {
      problems.push({ kind: 'Service', object: serviceKey, problem });
    }
    for (const port of found.ports) {
      const categorized = categorizeEndpoints(endpoints.of(port), port, this.#node);
      ports.set(portKey(port), { ...port, endpoints: categorized });
    }
    return { ports, problems };
  }
}
