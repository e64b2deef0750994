/**
 * Raw API objects to records. Total: whatever a field holds, the rest of the object is read; the
 * server has validated it, and one odd object must not hide the others. What we do not keep
 * (managedFields alone are a fifth of the bytes) ends here.
 */
import type {
  EndpointRecord,
  EndpointSliceRecord,
  NodeAddressesRecord,
  NodeRecord,
  ObjectMeta,
  Protocol,
  ServicePortRecord,
  ServiceCIDRRecord,
  ServiceRecord,
} from './types.ts';

/** Gives one copy for equal strings: names of nodes, zones and ports repeat in every endpoint. */
export type Intern = (text: string) => string;

/** Undefined = the object has no name: it cannot be stored. */
export type Project<T extends ObjectMeta> = (raw: unknown, intern: Intern) => T | undefined;

/** Past this many different strings it starts anew, so that churn of names does not grow it. */
const maxInterned = 65_536;

/** Gives equal texts one string, so that thousands of objects hold each label once. */
export function createIntern(): Intern {
  const known = new Map<string, string>();
  return (text) => {
    const found = known.get(text);
    if (found !== undefined) return found;
    if (known.size >= maxInterned) known.clear();
    known.set(text, text);
    return text;
  };
}

/** A core/v1 Node. */
export function projectNode(raw: unknown, intern: Intern): NodeRecord | undefined {
  const meta = projectMeta(raw, intern);
  if (meta === undefined) return undefined;
  const metadata = field(raw, 'metadata');
  const spec = field(raw, 'spec');
  const podCIDRs = texts(field(spec, 'podCIDRs'));
  return {
    ...meta,
    createdAt: text(field(metadata, 'creationTimestamp')),
    annotations: textMap(field(metadata, 'annotations')),
    labels: textMap(field(metadata, 'labels')),
    podCIDRs: podCIDRs.length > 0 ? podCIDRs : texts([field(spec, 'podCIDR')]),
    internalIPs: nodeAddresses(raw, ['InternalIP']),
    taintKeys: items(field(spec, 'taints')).map((taint) => intern(text(field(taint, 'key')))),
    deleting: text(field(metadata, 'deletionTimestamp')) !== '',
  };
}

/** A core/v1 Node, of which only its addresses matter. */
export function projectNodeAddresses(
  raw: unknown,
  intern: Intern,
): NodeAddressesRecord | undefined {
  const meta = projectMeta(raw, intern);
  if (meta === undefined) return undefined;
  return { ...meta, addresses: nodeAddresses(raw, ['InternalIP', 'ExternalIP']) };
}

function nodeAddresses(raw: unknown, types: readonly string[]): readonly string[] {
  return items(field(field(raw, 'status'), 'addresses'))
    .filter((address) => types.includes(text(field(address, 'type'))))
    .map((address) => text(field(address, 'address')));
}

/** A networking.k8s.io/v1 ServiceCIDR. */
export function projectServiceCIDR(raw: unknown, intern: Intern): ServiceCIDRRecord | undefined {
  const meta = projectMeta(raw, intern);
  if (meta === undefined) return undefined;
  return { ...meta, cidrs: texts(field(field(raw, 'spec'), 'cidrs')) };
}

/** A core/v1 Service, with the API's defaults where a field is absent. */
export function projectService(raw: unknown, intern: Intern): ServiceRecord | undefined {
  const meta = projectMeta(raw, intern);
  if (meta === undefined) return undefined;
  const spec = field(raw, 'spec');
  const clusterIPs = texts(field(spec, 'clusterIPs'));
  return {
    ...meta,
    type: oneOf(field(spec, 'type'), ['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName']),
    clusterIPs: clusterIPs.length > 0 ? clusterIPs : texts([field(spec, 'clusterIP')]),
    ipFamilies: texts(field(spec, 'ipFamilies')).filter((f) => f === 'IPv4' || f === 'IPv6'),
    ports: items(field(spec, 'ports')).map((port) => projectServicePort(port, intern)),
    externalIPs: texts(field(spec, 'externalIPs')),
    loadBalancerIngress: items(field(field(field(raw, 'status'), 'loadBalancer'), 'ingress'))
      .filter((ingress) => text(field(ingress, 'ip')) !== '')
      .map((ingress) => ({
        ip: text(field(ingress, 'ip')),
        ipMode: oneOf(field(ingress, 'ipMode'), ['VIP', 'Proxy']),
      })),
    loadBalancerSourceRanges: texts(field(spec, 'loadBalancerSourceRanges')),
    externalTrafficPolicy: oneOf(field(spec, 'externalTrafficPolicy'), ['Cluster', 'Local']),
    internalTrafficPolicy: oneOf(field(spec, 'internalTrafficPolicy'), ['Cluster', 'Local']),
    affinitySeconds: affinitySeconds(spec),
    healthCheckNodePort: int(field(spec, 'healthCheckNodePort')),
  };
}

/** A discovery.k8s.io/v1 EndpointSlice. Absent conditions count as kube-proxy counts them. */
export function projectEndpointSlice(
  raw: unknown,
  intern: Intern,
): EndpointSliceRecord | undefined {
  const meta = projectMeta(raw, intern);
  if (meta === undefined) return undefined;
  const metadata = field(raw, 'metadata');
  const lastChange = 'endpoints.kubernetes.io/last-change-trigger-time';
  return {
    ...meta,
    serviceName: intern(text(field(field(metadata, 'labels'), 'kubernetes.io/service-name'))),
    addressType: oneOf(field(raw, 'addressType'), ['IPv4', 'IPv6', 'FQDN']),
    ports: items(field(raw, 'ports'))
      .filter((port) => typeof field(port, 'name') === 'string' && int(field(port, 'port')) !== 0)
      .map((port) => ({
        name: intern(text(field(port, 'name'))),
        protocol: protocol(port),
        port: int(field(port, 'port')),
      })),
    endpoints: items(field(raw, 'endpoints')).flatMap((e) => projectEndpoint(e, intern)),
    triggerTime: text(field(field(metadata, 'annotations'), lastChange)),
  };
}

/** Identity and version of any object; undefined without a name. */
export function projectMeta(raw: unknown, intern: Intern): ObjectMeta | undefined {
  const metadata = field(raw, 'metadata');
  const name = text(field(metadata, 'name'));
  if (name === '') return undefined;
  return {
    namespace: intern(text(field(metadata, 'namespace'))),
    name,
    uid: text(field(metadata, 'uid')),
    resourceVersion: text(field(metadata, 'resourceVersion')),
  };
}

function projectServicePort(raw: unknown, intern: Intern): ServicePortRecord {
  return {
    name: intern(text(field(raw, 'name'))),
    protocol: protocol(raw),
    port: int(field(raw, 'port')),
    nodePort: int(field(raw, 'nodePort')),
  };
}

function affinitySeconds(spec: unknown): number {
  if (field(spec, 'sessionAffinity') !== 'ClientIP') return 0;
  const clientIp = field(field(spec, 'sessionAffinityConfig'), 'clientIP');
  // The API's default for ClientIP affinity: three hours.
  return int(field(clientIp, 'timeoutSeconds')) || 10_800;
}

function projectEndpoint(raw: unknown, intern: Intern): readonly EndpointRecord[] {
  const address = texts(field(raw, 'addresses'))[0];
  if (address === undefined) return [];
  const conditions = field(raw, 'conditions');
  const hints = field(raw, 'hints');
  return [
    {
      address,
      ready: field(conditions, 'ready') !== false,
      serving: field(conditions, 'serving') !== false,
      terminating: field(conditions, 'terminating') === true,
      nodeName: intern(text(field(raw, 'nodeName'))),
      zoneHints: hintNames(field(hints, 'forZones'), intern),
      nodeHints: hintNames(field(hints, 'forNodes'), intern),
    },
  ];
}

const noNames: readonly string[] = Object.freeze([]);

function hintNames(raw: unknown, intern: Intern): readonly string[] {
  const hints = items(raw);
  if (hints.length === 0) return noNames;
  return hints.map((hint) => intern(text(field(hint, 'name'))));
}

function protocol(raw: unknown): Protocol {
  return oneOf(field(raw, 'protocol'), ['TCP', 'UDP', 'SCTP']);
}

function field(raw: unknown, name: string): unknown {
  if (typeof raw !== 'object' || raw === null || !Object.hasOwn(raw, name)) return undefined;
  return (raw as Record<string, unknown>)[name];
}

function text(raw: unknown): string {
  return typeof raw === 'string' ? raw : '';
}

function int(raw: unknown): number {
  return typeof raw === 'number' && Number.isSafeInteger(raw) ? raw : 0;
}

function items(raw: unknown): readonly unknown[] {
  return Array.isArray(raw) ? raw : [];
}

/** The non-empty strings of a list. */
function texts(raw: unknown): readonly string[] {
  return items(raw).filter((entry) => typeof entry === 'string' && entry !== '') as string[];
}

function textMap(raw: unknown): Readonly<Record<string, string>> {
  if (typeof raw !== 'object' || raw === null) return {};
  return Object.fromEntries(Object.entries(raw).filter(([, value]) => typeof value === 'string'));
}

/** The value if it is one of the choices, else the first of them: the API's default. */
function oneOf<const C extends string>(raw: unknown, choices: readonly [C, ...C[]]): C {
  return choices.find((choice) => choice === raw) ?? choices[0];
}
