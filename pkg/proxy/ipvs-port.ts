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
  /** Whoever has the places. */
  readonly members: readonly SetMember[];
}

export type SetMember = readonly [set: SetId, member: string];

/** A place that a port claims. */
export interface IpvsEntry {
  /** serverKey(): asked for often. */
  readonly key: string;
  /** Without real servers: nobody may take what comes here. */
  readonly server: VirtualServer;
  /** What the rules must know of the place while it is this port's. */
  readonly members: readonly SetMember[];
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
  for (const address of port.externalIPs.filter(isReachable)) part.externalIP(address);
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
  readonly members: SetMember[] = [];
  readonly #port: ProxiedPort;
  readonly #options: IpvsOptions;

  constructor(port: ProxiedPort, options: IpvsOptions) {
    this.#port = port;
    this.#options = options;
  }

  internal(): void {
    const { clusterIP: address, endpoints, internalPolicy, port } = this.#port;
    const reached = internalPolicy === 'Local' ? endpoints.local : endpoints.cluster;
    this.#bind(address);
    const place = { address, port };
    if (!endpoints.hasAny) this.#claim(place, [], [this.#at('NO-ENDPOINT', place)]);
    else if (reached.length === 0) this.#claim(place, [], [this.#at('NO-LOCAL-IP', place)]);
    else this.#claim(place, reached, [this.#at('CLUSTER-IP', place)]);
  }

  externalIP(address: string): void {
    const place = { address, port: this.#port.port };
    const isLocal = this.#port.externalPolicy === 'Local';
    this.#bindExternal(address);
    this.#external(place, [this.#at(isLocal ? 'EXTERNAL-IP-LOCAL' : 'EXTERNAL-IP', place)]);
  }

  loadBalancer(address: string): void {
    const place = { address, port: this.#port.port };
    this.#bindExternal(address);
    this.#external(place, [
      this.#at('LOAD-BALANCER', place),
      ...(this.#port.externalPolicy === 'Local' ? [this.#at('LOAD-BALANCER-LOCAL', place)] : []),
      ...this.#guards(place),
    ]);
  }

  nodePorts(): void {
    const { endpoints, externalPolicy, nodePort: port, protocol } = this.#port;
    const isLocal = externalPolicy === 'Local';
    const ofSctp: readonly SetId[] = isLocal
      ? ['NODE-PORT-SCTP-HASH', 'NODE-PORT-LOCAL-SCTP-HASH']
      : ['NODE-PORT-SCTP-HASH'];
    for (const address of this.#options.nodePortAddresses) {
      const place = { address, port };
      this.#external(
        place,
        protocol === 'sctp' ? ofSctp.map((set) => this.#at(set, place)) : [],
        true,
      );
    }
    const isServed = endpoints.hasAny && this.#options.nodePortAddresses.length > 0;
    if (!isServed || protocol === 'sctp') return;
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

  /** Not one that another host has: nothing would reach that host from here. */
  #bindExternal(address: string): void {
    if (!this.#options.foreignAddresses.includes(address)) this.#bind(address);
  }

  /** Never an address that the host has already: it would be taken away with the Service. */
  #bind(address: string): void {
    if (this.#options.hostAddresses.includes(address)) return;
    this.addresses.push(address);
    this.members.push(['IPVS-IPS', address]);
  }

  portMember(set: SetId, port: number): void {
    this.members.push([set, String(port)]);
  }

  /**
   * An address that leads in from outside. A virtual server has one list of endpoints, whoever asks:
   * with policy Local those of this node. When it has none, pods and the node itself still reach the
   * others, and outsiders are dropped before.
   *
   * @param members while it is served
   */
  #external(place: Place, members: readonly SetMember[], isNodePort = false): void {
    const { endpoints, externalPolicy } = this.#port;
    if (!endpoints.hasAny) {
      this.#claim(place, [], [this.#at('NO-ENDPOINT', place)], isNodePort);
    } else if (externalPolicy === 'Local' && endpoints.local.length === 0) {
      const barred = this.#at('NO-LOCAL-EXTERNAL', place);
      this.#claim(place, endpoints.cluster, [...members, barred], isNodePort);
    } else {
      const reached = externalPolicy === 'Local' ? endpoints.local : endpoints.cluster;
      this.#claim(place, reached, members, isNodePort);
    }
  }

  /** Who may come to a load balancer's address. */
  #guards(place: Place): readonly SetMember[] {
    const { protocol, sourceRanges } = this.#port;
    if (sourceRanges.length === 0) return [];
    const at = addressAndPort(place.address, protocol, place.port);
    const admitted = sourceRanges.map((range): SetMember => {
      return ['LOAD-BALANCER-SOURCE-CIDR', `${at},${networkText(range)}`];
    });
    // The node may own the load balancer's address and then uses it as the source towards it.
    const { nodeAddress } = this.#options;
    const node = nodeAddress === undefined ? undefined : parseAddress(nodeAddress);
    const isNodeAdmitted =
      node !== undefined && sourceRanges.some((range) => containsAddress(range, node));
    const self: SetMember = ['LOAD-BALANCER-SOURCE-IP', `${at},${place.address}`];
    return [this.#at('LOAD-BALANCER-FW', place), ...admitted, ...(isNodeAdmitted ? [self] : [])];
  }

  #at(set: SetId, { address, port }: Place): SetMember {
    return [set, addressAndPort(address, this.#port.protocol, port)];
  }

  #claim(
    { address, port }: Place,
    endpoints: readonly Endpoint[],
    members: readonly SetMember[],
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
    this.entries.push({ key: serverKey(server), server, members, isNodePort });
  }
}

/** Not what is for the host alone, nor what no host has, whatever a load balancer's status says. */
function isReachable(address: string): boolean {
  return ![...hostOnly, ...nobodys].some((range) => containsAddress(range, parseAddress(address)));
}

const hostOnly = ['127.0.0.0/8', '::1/128', 'fe80::/10'].map(parsePrefix);

/** The kernel refuses some of these, and takes others as its own: then multicast ends at this host. */
const nobodys = ['0.0.0.0/32', '::/128', '224.0.0.0/4', 'ff00::/8', '255.255.255.255/32'].map(
  parsePrefix,
);

/** ipset prints the network of a single address as the address. */
function networkText(range: Prefix): string {
  const text = formatPrefix(range);
  const single = range.address.family === 'ip' ? '/32' : '/128';
  return text.endsWith(single) ? text.slice(0, -single.length) : text;
}
