/** The kinds we read and write: where the API serves them, and which of them we ask for. */

/** Where the API serves a kind. */
export interface ResourceType {
  /** Empty = the core group. */
  readonly group: string;
  readonly version: string;
  /** Lower case, as in URLs and RBAC. */
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

/** What to list and watch. */
export interface ResourceSpec {
  readonly type: ResourceType;
  /** Undefined = in all namespaces. */
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
}

export const nodeType: ResourceType = {
  group: '',
  version: 'v1',
  plural: 'nodes',
  kind: 'Node',
  namespaced: false,
};

export const serviceType: ResourceType = {
  group: '',
  version: 'v1',
  plural: 'services',
  kind: 'Service',
  namespaced: true,
};

export const endpointSliceType: ResourceType = {
  group: 'discovery.k8s.io',
  version: 'v1',
  plural: 'endpointslices',
  kind: 'EndpointSlice',
  namespaced: true,
};

const serviceCIDRType: ResourceType = {
  group: 'networking.k8s.io',
  version: 'v1',
  plural: 'servicecidrs',
  kind: 'ServiceCIDR',
  namespaced: false,
};

export const eventType: ResourceType = {
  group: '',
  version: 'v1',
  plural: 'events',
  kind: 'Event',
  namespaced: true,
};

export const allNodes: ResourceSpec = { type: nodeType };

export const allServiceCIDRs: ResourceSpec = { type: serviceCIDRType };

/** One Node: an agent needs no right to read the others for this. */
export function oneNode(name: string): ResourceSpec {
  return { type: nodeType, fieldSelector: `metadata.name=${name}` };
}

/** The Services of kube-proxy: not headless, and not given to another proxy by its label. */
export const proxiedServices: ResourceSpec = {
  type: serviceType,
  labelSelector: '!service.kubernetes.io/service-proxy-name',
  fieldSelector: 'spec.clusterIP!=None',
};

/** The EndpointSlices of kube-proxy: not of headless Services. */
export const proxiedEndpointSlices: ResourceSpec = {
  type: endpointSliceType,
  labelSelector: '!service.kubernetes.io/headless',
};

/** The path of a collection, without query. */
export function collectionPath(type: ResourceType, namespace?: string): string {
  const root = type.group === '' ? '/api' : `/apis/${type.group}`;
  const within = namespace === undefined ? '' : `/namespaces/${encodeURIComponent(namespace)}`;
  return `${root}/${type.version}${within}/${type.plural}`;
}

/** One object, or a subresource of it. */
export interface ObjectRef {
  readonly type: ResourceType;
  /** Needed for namespaced kinds. */
  readonly namespace?: string;
  readonly name: string;
  readonly subresource?: 'status';
}

/** Where the API server has the object, or a part of it. */
export function objectPath(ref: ObjectRef): string {
  const path = `${collectionPath(ref.type, ref.namespace)}/${encodeURIComponent(ref.name)}`;
  return ref.subresource === undefined ? path : `${path}/${ref.subresource}`;
}
