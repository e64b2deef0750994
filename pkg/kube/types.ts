/**
 * What we keep of a Kubernetes object: only the fields the features read, as the API spells their
 * values. Filled by `project.ts` while decoding; immutable from then on.
 */

/** Identity and version every record carries. */
export interface ObjectMeta {
  /** Empty for cluster-scoped kinds. */
  readonly namespace: string;
  readonly name: string;
  /** Changes when an object was deleted and made again under its name. */
  readonly uid: string;
  /** Opaque: compare by equality only. */
  readonly resourceVersion: string;
}

export interface ServiceCIDRRecord extends ObjectMeta {
  /** `spec.cidrs`: one, or one of each family. */
  readonly cidrs: readonly string[];
}

export interface NodeRecord extends ObjectMeta {
  /** `metadata.creationTimestamp`, RFC 3339 in UTC: sorts as text. */
  readonly createdAt: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
  /** `spec.podCIDRs`, or `[spec.podCIDR]`; empty until the controller manager assigned them. */
  readonly podCIDRs: readonly string[];
  /** `status.addresses` of type InternalIP, in their order. */
  readonly internalIPs: readonly string[];
  readonly taintKeys: readonly string[];
  readonly deleting: boolean;
}

/** Of a Node only where it is: the rest changes often, and takes memory. */
export interface NodeAddressesRecord extends ObjectMeta {
  /** `status.addresses` of types InternalIP and ExternalIP, in their order. */
  readonly addresses: readonly string[];
}

export type Protocol = 'TCP' | 'UDP' | 'SCTP';

export interface ServicePortRecord {
  /** Empty for the one port of a Service that gives it no name. */
  readonly name: string;
  readonly protocol: Protocol;
  readonly port: number;
  /** 0 = none. */
  readonly nodePort: number;
}

export interface ServiceRecord extends ObjectMeta {
  readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalName';
  /** `spec.clusterIPs`, or `[spec.clusterIP]`; `['None']` for headless. */
  readonly clusterIPs: readonly string[];
  readonly ipFamilies: readonly ('IPv4' | 'IPv6')[];
  readonly ports: readonly ServicePortRecord[];
  readonly externalIPs: readonly string[];
  /** `status.loadBalancer.ingress`, those with an IP. */
  readonly loadBalancerIngress: readonly {
    readonly ip: string;
    readonly ipMode: 'VIP' | 'Proxy';
  }[];
  readonly loadBalancerSourceRanges: readonly string[];
  readonly externalTrafficPolicy: 'Cluster' | 'Local';
  readonly internalTrafficPolicy: 'Cluster' | 'Local';
  /** Seconds of ClientIP affinity; 0 = none. */
  readonly affinitySeconds: number;
  /** 0 = none. */
  readonly healthCheckNodePort: number;
}

export interface EndpointRecord {
  /** `addresses[0]`: the others are ignored by every proxy. */
  readonly address: string;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  /** Empty = unknown. */
  readonly nodeName: string;
  readonly zoneHints: readonly string[];
  readonly nodeHints: readonly string[];
}

export interface EndpointSliceRecord extends ObjectMeta {
  /** Label `kubernetes.io/service-name`; empty = belongs to no Service. */
  readonly serviceName: string;
  readonly addressType: 'IPv4' | 'IPv6' | 'FQDN';
  /** Ports without a name or number are dropped at decode. */
  readonly ports: readonly {
    readonly name: string;
    readonly protocol: Protocol;
    readonly port: number;
  }[];
  readonly endpoints: readonly EndpointRecord[];
  /** Annotation `endpoints.kubernetes.io/last-change-trigger-time`, RFC 3339; empty = none. */
  readonly triggerTime: string;
}

/** "namespace/name", or "name" for cluster-scoped kinds: a store's key. */
export function objectKey(meta: Pick<ObjectMeta, 'namespace' | 'name'>): string {
  return meta.namespace === '' ? meta.name : `${meta.namespace}/${meta.name}`;
}
