/** What one Service port adds in ipvs mode: virtual servers, addresses of the host, set members. */
import { parseAddress } from '#pkg/ip/address.ts';
import { containsAddress, formatPrefix, parsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { addressAndPort } from '#pkg/ipset/ip-set.ts';
import { serverKey, type VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import type { Endpoint } from './endpoints.ts';
import type { IpvsOptions } from './ipvs-options.ts';
import type { SetId } from './ipvs-sets.ts';
import type { ProxiedPort } from './proxied-port.ts';

export interface IpvsPart {
  readonly entries: readonly IpvsEntry[];
  /** To be on the device for Services, so that the kernel takes their packets in. */
  readonly addresses: readonly string[];
  readonly members: readonly (readonly [set: SetId, member: string])[];
}

/** A place that a port claims. */
export interface IpvsEntry {
  /** serverKey(): asked for often. */
  readonly key: string;
  /** Without real servers: nobody may take what comes here. */
  readonly server: VirtualServer;
  /** Of the sets that say so the one that names the place; undefined when all is served. */
  readonly unserved: SetId | undefined;
  readonly isNodePort: boolean;
}

/** Where a port is served. */
interface Place {
  readonly address: string;
  readonly port: number;
}

/** The port's virtual servers, set members and addresses of the dummy device. */
export function ipvsPart(port: ProxiedPort, options: IpvsOptions): IpvsPart {
  const part = new PartBuilder(port, options);
  part.internal();
  for (const address of port.externalIPs.filter(isReachable)) {
    const set = port.externalPolicy === 'Local' ? 'EXTERNAL-IP-LOCAL' : 'EXTERNAL-IP';
    if (part.external({ address, port: port.port })) part.member(set, address);
    part.bind(address);
  }
  for (const address of port.loadBalancerIPs.filter(isReachable)) part.loadBalancer(address);
  if (port.nodePort !== 0) part.nodePorts();
  if (port.healthCheckNodePort !== 0) {
    part.portMember('HEALTH-CHECK-NODE-PORT', port.healthCheckNodePort);
  }
  part.hairpins();
  return part;
}

class PartBuilder implements IpvsPart {
  readonly entries: IpvsEntry[] = [];
  readonly addresses: string[] = [];
  readonly members: [SetId, string][] = [];
  readonly #port: ProxiedPort;
  readonly #options: IpvsOptions;

  constructor(port: ProxiedPort, options: IpvsOptions) {
    this.#port = port;
    this.#options = options;
  }

  internal(): void {
    const { clusterIP: address, endpoints, internalPolicy, port } = this.#port;
    const reached = internalPolicy === 'Local' ? endpoints.local : endpoints.cluster;
    this.bind(address);
    if (!endpoints.hasAny) this.#claim({ address, port }, [], 'NO-ENDPOINT');
    else if (reached.length === 0) this.#claim({ address, port }, [], 'NO-LOCAL-IP');
    else {
      this.#claim({ address, port }, reached);
      this.member('CLUSTER-IP', address);
    }
  }

  /**
   * Serves an address that leads in from outside; false when nobody is there. A virtual server has
   * one list of endpoints, whoever asks: with policy Local those of this node. When it has none,
   * pods and the node itself still reach the others, and outsiders are dropped before.
   */
  external(place: Place, isNodePort = false): boolean {
    const { endpoints, externalPolicy } = this.#port;
    if (!endpoints.hasAny) {
      this.#claim(place, [], 'NO-ENDPOINT', isNodePort);
      return false;
    }
    if (externalPolicy === 'Cluster' || endpoints.local.length === 0) {
      const unserved = externalPolicy === 'Cluster' ? undefined : 'NO-LOCAL-EXTERNAL';
      this.#claim(place, endpoints.cluster, unserved, isNodePort);
    } else this.#claim(place, endpoints.local, undefined, isNodePort);
    return true;
  }

  loadBalancer(address: string): void {
    const { externalPolicy, port, protocol, sourceRanges } = this.#port;
    this.bind(address);
    if (!this.external({ address, port })) return;
    this.member('LOAD-BALANCER', address);
    if (externalPolicy === 'Local') this.member('LOAD-BALANCER-LOCAL', address);
    if (sourceRanges.length === 0) return;
    this.member('LOAD-BALANCER-FW', address);
    const at = addressAndPort(address, protocol, port);
    for (const range of sourceRanges) {
      this.members.push(['LOAD-BALANCER-SOURCE-CIDR', `${at},${networkText(range)}`]);
    }
    // The node may own the load balancer's address and then uses it as the source towards it.
    const { nodeAddress } = this.#options;
    const node = nodeAddress === undefined ? undefined : parseAddress(nodeAddress);
    if (node !== undefined && sourceRanges.some((range) => containsAddress(range, node))) {
      this.members.push(['LOAD-BALANCER-SOURCE-IP', `${at},${address}`]);
    }
  }

  nodePorts(): void {
    const { externalPolicy, nodePort: port, protocol } = this.#port;
    const isLocal = externalPolicy === 'Local';
    let served = false;
    for (const address of this.#options.nodePortAddresses) {
      const isServed = this.external({ address, port }, true);
      served ||= isServed;
      if (protocol !== 'sctp' || !isServed) continue;
      this.member('NODE-PORT-SCTP-HASH', address, port);
      if (isLocal) this.member('NODE-PORT-LOCAL-SCTP-HASH', address, port);
    }
    if (!served || protocol === 'sctp') return;
    this.portMember(protocol === 'tcp' ? 'NODE-PORT-TCP' : 'NODE-PORT-UDP', port);
    if (!isLocal) return;
    this.portMember(protocol === 'tcp' ? 'NODE-PORT-LOCAL-TCP' : 'NODE-PORT-LOCAL-UDP', port);
  }

  /** A pod that reaches itself must see another source, or it would answer itself directly. */
  hairpins(): void {
    const { endpoints, protocol } = this.#port;
    for (const { address, local, port } of endpoints.reachable) {
      if (!local) continue;
      const at = addressAndPort(address, protocol, port);
      this.members.push(['LOOP-BACK', `${at},${address}`]);
    }
  }

  /**
   * Never an address that the host has already, which would be taken away with the Service, nor one
   * that another host has: nothing would reach that host from here.
   */
  bind(address: string): void {
    const { foreignAddresses, hostAddresses } = this.#options;
    if (hostAddresses.includes(address) || foreignAddresses.includes(address)) return;
    this.addresses.push(address);
    this.members.push(['IPVS-IPS', address]);
  }

  member(set: SetId, address: string, port = this.#port.port): void {
    this.members.push([set, addressAndPort(address, this.#port.protocol, port)]);
  }

  portMember(set: SetId, port: number): void {
    this.members.push([set, String(port)]);
  }

  #claim(
    { address, port }: Place,
    endpoints: readonly Endpoint[],
    unserved?: SetId,
    isNodePort = false,
  ): void {
    const { affinitySeconds, protocol } = this.#port;
    const { family, scheduler, schedulerFlags } = this.#options;
    const server: VirtualServer = {
      family,
      protocol,
      address,
      port,
      scheduler,
      flags: schedulerFlags,
      persistenceSeconds: affinitySeconds,
      realServers: endpoints.map((e) => ({ address: e.address, port: e.port, weight: 1 })),
    };
    this.entries.push({ key: serverKey(server), server, unserved, isNodePort });
  }
}

/** What is for the host alone stays its own, whatever a load balancer's status says. */
function isReachable(address: string): boolean {
  return !hostOnly.some((range) => containsAddress(range, parseAddress(address)));
}

const hostOnly = ['127.0.0.0/8', '::1/128', 'fe80::/10'].map(parsePrefix);

/** ipset prints the network of a single address as the address. */
function networkText(range: Prefix): string {
  const text = formatPrefix(range);
  const single = range.address.family === 'ip' ? '/32' : '/128';
  return text.endsWith(single) ? text.slice(0, -single.length) : text;
}
