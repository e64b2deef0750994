/** What a Service's client may leave out, and what an update keeps of the Service before it. */
import {
  isJsonObject,
  listAt,
  objectAt,
  sameJson,
  textAt,
  valueAt,
  without,
  type Json,
  type JsonObject,
} from '#pkg/embedded-api/json.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import { eachObject, withAbsent } from './defaults.ts';

/** Three hours: kube-apiserver's default of ClientIP affinity. */
const affinitySeconds = 10800;

/** Defaults of core/v1 (pkg/apis/core/v1/defaults.go) over what an update carries on. */
export function withServiceDefaults(service: KubeObject, old: KubeObject | undefined): KubeObject {
  const spec = isJsonObject(service['spec']) ? service['spec'] : {};
  const typed = withAbsent(spec, { type: 'ClusterIP' });
  const carried = old === undefined ? typed : carryOn(typed, objectAt(old, 'spec'));
  return { ...service, spec: withSpecDefaults(withOneAddressList(carried)) };
}

function withSpecDefaults(spec: JsonObject): JsonObject {
  const type = textAt(spec, 'type');
  const isExternal = type === 'NodePort' || type === 'LoadBalancer';
  const ports = eachObject(listAt(spec, 'ports'), (port) => {
    const filled = withAbsent(port, { protocol: 'TCP' });
    const target = textAt(filled, 'targetPort');
    if (target !== '' && target !== '0') return filled;
    return { ...filled, targetPort: filled['port'] };
  });
  const affinity = textAt(spec, 'sessionAffinity') === 'ClientIP';
  const filled = withAbsent(spec, {
    sessionAffinity: 'None',
    internalTrafficPolicy: type === 'ExternalName' ? undefined : 'Cluster',
    externalTrafficPolicy: isExternal ? 'Cluster' : undefined,
    allocateLoadBalancerNodePorts: type === 'LoadBalancer' ? true : undefined,
    sessionAffinityConfig: affinity ? { clientIP: { timeoutSeconds: affinitySeconds } } : undefined,
  });
  const kept = affinity ? filled : without(filled, 'sessionAffinityConfig');
  return isJsonObject(kept) && Array.isArray(spec['ports']) ? { ...kept, ports } : kept;
}

/** `clusterIP` and `clusterIPs[0]` say the same; a client may give either. */
function withOneAddressList(spec: JsonObject): JsonObject {
  const single = textAt(spec, 'clusterIP');
  const list = listAt(spec, 'clusterIPs');
  if (list.length === 0) return single === '' ? spec : { ...spec, clusterIPs: [single] };
  return single === '' ? { ...spec, clusterIP: list[0] } : spec;
}

/** An update need not repeat what the server once chose (registry/core/service/strategy.go). */
function carryOn(spec: JsonObject, old: JsonObject): JsonObject {
  const type = textAt(spec, 'type');
  if (type === 'ExternalName') return withoutUnchanged(spec, old, clusterFields);
  const addressed =
    textAt(old, 'type') === 'ExternalName' ? spec : downgraded(carryAddresses(spec, old), old);
  const isExternal = type === 'NodePort' || type === 'LoadBalancer';
  return isExternal ? carryPorts(addressed, old) : dropPorts(addressed, old);
}

const clusterFields = [
  'clusterIP',
  'clusterIPs',
  'ipFamilies',
  'ipFamilyPolicy',
  'internalTrafficPolicy',
];

function carryAddresses(spec: JsonObject, old: JsonObject): JsonObject {
  const single = spec['clusterIP'];
  const list = spec['clusterIPs'];
  // A client that knows only clusterIP changes it and sends the old list along.
  const listIsStale =
    single !== undefined && single !== old['clusterIP'] && sameJson(list, old['clusterIPs']);
  const addresses = listIsStale ? without(spec, 'clusterIPs') : spec;
  return withAbsent(addresses, {
    clusterIP: listAt(addresses, 'clusterIPs')[0] ?? old['clusterIP'],
    clusterIPs: single === undefined || single === old['clusterIP'] ? old['clusterIPs'] : undefined,
    ipFamilies: old['ipFamilies'],
    ipFamilyPolicy: old['ipFamilyPolicy'],
  });
}

/** SingleStack where two families were: the second goes, if the client did not touch them. */
function downgraded(spec: JsonObject, old: JsonObject): JsonObject {
  const isDowngrade =
    textAt(spec, 'ipFamilyPolicy') === 'SingleStack' &&
    textAt(old, 'ipFamilyPolicy') !== 'SingleStack';
  if (!isDowngrade) return spec;
  const first = (key: string): Json | undefined =>
    sameJson(spec[key], old[key]) && spec[key] !== undefined
      ? listAt(spec, key).slice(0, 1)
      : spec[key];
  return { ...spec, ipFamilies: first('ipFamilies'), clusterIPs: first('clusterIPs') };
}

/** Ports keep the node port they had, found by protocol and port. */
function carryPorts(spec: JsonObject, old: JsonObject): JsonObject {
  const identity = (port: Json): string =>
    `${textAt(port, 'protocol') || 'TCP'}/${textAt(port, 'port')}`;
  const given = new Set(listAt(spec, 'ports').map((port) => valueAt(port, 'nodePort')));
  const before = new Map(
    listAt(old, 'ports').map((port) => [identity(port), valueAt(port, 'nodePort')]),
  );
  const ports = eachObject(listAt(spec, 'ports'), (port) => {
    const had = before.get(identity(port));
    return given.has(had) ? port : withAbsent(port, { nodePort: had });
  });
  const health =
    textAt(spec, 'type') === 'LoadBalancer' && textAt(spec, 'externalTrafficPolicy') === 'Local'
      ? withAbsent(spec, { healthCheckNodePort: old['healthCheckNodePort'] })
      : withoutUnchanged(spec, old, ['healthCheckNodePort']);
  return spec['ports'] === undefined ? health : { ...health, ports };
}

/** Back to ClusterIP: node ports and what only they need are dropped, unless newly given. */
function dropPorts(spec: JsonObject, old: JsonObject): JsonObject {
  const before = new Set(listAt(old, 'ports').map((port) => valueAt(port, 'nodePort')));
  const ports = eachObject(listAt(spec, 'ports'), (port) =>
    before.has(port['nodePort']) ? without(port, 'nodePort') : port,
  );
  const hasExternalIPs = listAt(spec, 'externalIPs').length > 0;
  const external = [
    ...(hasExternalIPs ? [] : ['externalTrafficPolicy']),
    'allocateLoadBalancerNodePorts',
    'healthCheckNodePort',
    'loadBalancerClass',
  ];
  const kept =
    textAt(old, 'type') === textAt(spec, 'type') ? spec : withoutUnchanged(spec, old, external);
  return spec['ports'] === undefined ? kept : { ...kept, ports };
}

function withoutUnchanged(spec: JsonObject, old: JsonObject, keys: readonly string[]): JsonObject {
  return without(spec, ...keys.filter((key) => sameJson(spec[key], old[key])));
}
