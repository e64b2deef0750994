/** Services and slices for tests, with the API server's defaults filled in. */
import type { EndpointRecord, EndpointSliceRecord, ServiceRecord } from '#pkg/kube/types.ts';
import { objectKey } from '#pkg/kube/types.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { IptablesOptions } from '#pkg/proxy/iptables-options.ts';
import { iptablesRuleset } from '#pkg/proxy/iptables-ruleset.ts';
import { byName, type Problem, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { ServiceModel, type ModelInput } from '#pkg/proxy/service-model.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import { tracePacket, type Packet } from '#pkg/iptables/tracer.ts';

export const nodeName = 'this-node';
export const nodeAddress = '192.168.0.2';

/** Where packets come from and go to, one of each kind a family. */
export const places = {
  ip: {
    pod: '10.0.0.2',
    node: nodeAddress,
    outside: '203.0.113.2',
    clusterIP: '172.30.0.41',
    externalIP: '192.168.99.11',
    loadBalancer: '1.2.3.4',
    /** An endpoint of another node, and one of ours. */
    far: '10.0.1.2',
    near: '10.0.1.3',
  },
  ip6: {
    pod: 'fd00:10::2',
    node: 'fd00:192::2',
    outside: '2001:db8::2',
    clusterIP: 'fd00:96::41',
    externalIP: '2001:db8:99::11',
    loadBalancer: '2001:db8:1::4',
    far: 'fd00:10::1:2',
    near: 'fd00:10::1:3',
  },
} as const;

/** An endpoint on this node. */
export const local = (address: string): { address: string; nodeName: string } => ({
  address,
  nodeName,
});

/** "10.0.0.1:80", "[fd00::1]:80". */
export const at = (address: string, port: number): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;

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
    ports: [{ name: 'p80', protocol: 'TCP', port: 80, nodePort: 0 }],
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
    nodeAddress: fields.family === 'ip6' ? 'fd00:192::2' : nodeAddress,
    randomFully: false,
    conntrackLiberal: false,
    ...fields,
  };
}

export function ruleset(cluster: Cluster, fields: Partial<IptablesOptions> = {}): Ruleset {
  const rendered = options(fields);
  return iptablesRuleset(snapshot(cluster, rendered.family).ports, rendered);
}

/** "10.1.1.1:80, 10.1.1.2:80 masqueraded", "reject", "drop" or "unmatched". */
export function trace(rules: Ruleset, packet: Partial<Packet> & { to: string }): string {
  const [, bracketed, bare, port] = /^(?:\[(.+)\]|([^:]+)):(\d+)$/.exec(packet.to) ?? [];
  const outcomes = tracePacket(
    rules,
    {
      source: '10.0.0.2',
      protocol: 'tcp',
      destination: bracketed ?? bare ?? '',
      port: Number(port),
      ...packet,
    },
    { addresses: [nodeAddress, '192.168.1.2', 'fd00:192::2'] },
  );
  const texts = outcomes.map(({ verdict, endpoint: target, masqueraded }) => {
    if (verdict !== 'accept') return verdict;
    return target === undefined ? 'unmatched' : `${target}${masqueraded ? ' masqueraded' : ''}`;
  });
  return [...new Set(texts)].toSorted().join(', ');
}
