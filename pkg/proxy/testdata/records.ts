/** Services and slices for tests, with the API server's defaults filled in. */
import type {
  EndpointRecord,
  EndpointSliceRecord,
  ServicePortRecord,
  ServiceRecord,
} from '#pkg/kube/types.ts';
import { objectKey } from '#pkg/kube/types.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { IptablesOptions } from '#pkg/proxy/iptables-options.ts';
import { iptablesRuleset } from '#pkg/proxy/iptables-ruleset.ts';
import { byName, portKey, type Problem, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { ServiceModel, type ModelInput } from '#pkg/proxy/service-model.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import { places } from './places.ts';

export const nodeName = 'this-node';

/** An endpoint on this node. */
export const local = (
  address: string,
  fields: Partial<EndpointRecord> = {},
): Partial<EndpointRecord> & { address: string } => ({ address, nodeName, ...fields });

/** "10.0.0.1:80", "[fd00::1]:80". */
export const at = (address: string, port: number): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;

/** The one port of a Service, or of a slice: the latter has no use for `nodePort`. */
export const p80 = (
  nodePort = 0,
  protocol: ServicePortRecord['protocol'] = 'TCP',
): readonly [ServicePortRecord] => [{ name: 'p80', protocol, port: 80, nodePort }];

export function service(
  name: string,
  fields: Partial<ServiceRecord> & Pick<ServiceRecord, 'clusterIPs'>,
): ServiceRecord {
  const [namespace = '', short = ''] = name.split('/');
  return {
    namespace,
    name: short,
    uid: `uid-${name}`,
    resourceVersion: '1',
    type: 'ClusterIP',
    ipFamilies: fields.clusterIPs.map((ip) => (ip.includes(':') ? 'IPv6' : 'IPv4')),
    ports: p80(),
    externalIPs: [],
    loadBalancerIngress: [],
    loadBalancerSourceRanges: [],
    externalTrafficPolicy: 'Cluster',
    internalTrafficPolicy: 'Cluster',
    affinitySeconds: 0,
    healthCheckNodePort: 0,
    ...fields,
  };
}

/** `name` is "namespace/service"; `endpoints` are addresses or whole records. */
export function slice(
  name: string,
  endpoints: readonly (string | (Partial<EndpointRecord> & { address: string }))[],
  fields: Partial<EndpointSliceRecord> = {},
): EndpointSliceRecord {
  const [namespace = '', serviceName = ''] = name.split('/');
  const records = endpoints.map((e) => endpoint(typeof e === 'string' ? { address: e } : e));
  const v6 = records[0]?.address.includes(':') === true;
  return {
    namespace,
    name: `${serviceName}-${v6 ? 'v6' : 'v4'}`,
    uid: `uid-${name}`,
    resourceVersion: '1',
    serviceName,
    addressType: v6 ? 'IPv6' : 'IPv4',
    ports: [{ name: 'p80', protocol: 'TCP', port: 80 }],
    endpoints: records,
    triggerTime: '',
    ...fields,
  };
}

export function endpoint(fields: Partial<EndpointRecord> & { address: string }): EndpointRecord {
  const terminating = fields.terminating ?? false;
  return {
    ready: !terminating,
    serving: true,
    terminating,
    nodeName: 'other-node',
    zoneHints: [],
    nodeHints: [],
    ...fields,
  };
}

export interface Cluster {
  readonly services: readonly ServiceRecord[];
  readonly slices?: readonly EndpointSliceRecord[];
  readonly zone?: string;
}

/** All that a node serves: ports in the order they are written, and what cannot be served. */
export function snapshot(
  cluster: Cluster,
  family: Family = 'ip',
): { readonly ports: readonly ProxiedPort[]; readonly problems: readonly Problem[] } {
  const model = new ServiceModel(family, { name: nodeName, zone: cluster.zone });
  model.update(asChanges(cluster));
  return { ports: [...model.ports.values()].toSorted(byName), problems: model.problems };
}

/** The ports of a {@link snapshot} by their keys. */
export function portsOf(cluster: Cluster, family: Family = 'ip'): Map<string, ProxiedPort> {
  return new Map(snapshot(cluster, family).ports.map((port) => [portKey(port), port]));
}

/** The cluster as a store tells of it at first. */
export function asChanges(cluster: Cluster): ModelInput {
  return {
    services: cluster.services.map((s) => ({ key: objectKey(s), new: s })),
    slices: (cluster.slices ?? []).map((s) => ({ key: objectKey(s), new: s })),
  };
}

export function options(fields: Partial<IptablesOptions> = {}): IptablesOptions {
  return {
    family: 'ip',
    layout: 'compatible',
    masqueradeBit: 14,
    masqueradeAll: false,
    localDetector: {
      kind: 'cluster-cidr',
      prefixes: [parsePrefix('10.0.0.0/8'), parsePrefix('fd00:10::/64')],
    },
    localhostNodePorts: true,
    nodePortAddresses: 'all',
    nodeAddress: places[fields.family ?? 'ip'].node,
    randomFully: false,
    conntrackLiberal: false,
    ...fields,
  };
}

export function ruleset(cluster: Cluster, fields: Partial<IptablesOptions> = {}): Ruleset {
  const rendered = options(fields);
  return iptablesRuleset(snapshot(cluster, rendered.family).ports, rendered);
}
