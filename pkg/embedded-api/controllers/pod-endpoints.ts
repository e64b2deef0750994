/** Pods as the endpoints of a Service (k8s.io/endpointslice utils.go). Pure. */
import {
  isJsonObject,
  listAt,
  objectAt,
  textAt,
  textMapAt,
  valueAt,
  type Json,
  type JsonObject,
} from '#pkg/embedded-api/json.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import { ipFamilyOf, type IpFamily } from '#pkg/embedded-api/admission/service-allocations.ts';

/** Endpoints that listen on the same port numbers: what one EndpointSlice can hold. */
export interface EndpointGroup {
  readonly family: IpFamily;
  readonly ports: readonly JsonObject[];
  readonly endpoints: readonly JsonObject[];
}

/** Zone of a Node by its name; '' where unknown. */
export type ZoneOf = (nodeName: string) => string;

/**
 * The endpoints of a Service, grouped by family and port numbers: pods may give one port name
 * different numbers.
 */
export function endpointGroups(
  service: KubeObject,
  pods: readonly KubeObject[],
  zoneOf: ZoneOf,
): readonly EndpointGroup[] {
  const families = listAt(service, 'spec', 'ipFamilies').map((family) => textAt(family));
  return families.flatMap((family) => familyGroups(service, family as IpFamily, pods, zoneOf));
}

function familyGroups(
  service: KubeObject,
  family: IpFamily,
  pods: readonly KubeObject[],
  zoneOf: ZoneOf,
): readonly EndpointGroup[] {
  const byPorts = new Map<string, { ports: readonly JsonObject[]; endpoints: JsonObject[] }>();
  for (const pod of pods) {
    const address = podAddress(pod, family);
    if (address === undefined || isEnded(pod)) continue;
    const ports = resolvedPorts(service, pod);
    const key = JSON.stringify(ports);
    const group = byPorts.get(key) ?? { ports, endpoints: [] };
    group.endpoints.push(endpoint(service, pod, address, zoneOf));
    byPorts.set(key, group);
  }
  return [...byPorts.values()].map((group) => ({ family, ...group }));
}

function podAddress(pod: KubeObject, family: IpFamily): string | undefined {
  const addresses = listAt(pod, 'status', 'podIPs').map((entry) => textAt(entry, 'ip'));
  return addresses.find((address) => ipFamilyOf(address) === family);
}

function isEnded(pod: KubeObject): boolean {
  return ['Failed', 'Succeeded'].includes(textAt(pod, 'status', 'phase'));
}

function endpoint(
  service: KubeObject,
  pod: KubeObject,
  address: string,
  zoneOf: ZoneOf,
): JsonObject {
  const { namespace = '', name, uid } = pod.metadata;
  const serving = isReady(pod);
  const terminating = pod.metadata.deletionTimestamp !== undefined;
  const publishes = valueAt(service, 'spec', 'publishNotReadyAddresses') === true;
  const nodeName = textAt(pod, 'spec', 'nodeName');
  const zone = zoneOf(nodeName);
  const hostname = textAt(pod, 'spec', 'hostname');
  const isNamed = hostname !== '' && textAt(pod, 'spec', 'subdomain') === service.metadata.name;
  return {
    addresses: [address],
    conditions: { ready: publishes || (serving && !terminating), serving, terminating },
    ...(isNamed ? { hostname } : {}),
    targetRef: { kind: 'Pod', namespace, name, uid },
    ...(nodeName === '' ? {} : { nodeName }),
    ...(zone === '' ? {} : { zone }),
  };
}

function isReady(pod: KubeObject): boolean {
  const ready = listAt(pod, 'status', 'conditions').find(
    (condition) => textAt(condition, 'type') === 'Ready',
  );
  return textAt(ready, 'status') === 'True';
}

/** The Service's ports with the numbers this pod has for them; ports it lacks are left out. */
function resolvedPorts(service: KubeObject, pod: KubeObject): readonly JsonObject[] {
  return listAt(service, 'spec', 'ports').flatMap((port) => {
    const protocol = textAt(port, 'protocol');
    const number = targetPort(objectAt(port), protocol, pod);
    if (number === undefined) return [];
    const appProtocol = valueAt(port, 'appProtocol');
    return [
      {
        name: textAt(port, 'name'),
        protocol,
        port: number,
        ...(appProtocol === undefined ? {} : { appProtocol }),
      },
    ];
  });
}

function targetPort(port: JsonObject, protocol: string, pod: KubeObject): number | undefined {
  const target = port['targetPort'];
  if (typeof target === 'number') return target;
  const named = containers(pod)
    .flatMap((container) => listAt(container, 'ports'))
    .find((item) => textAt(item, 'name') === target && textAt(item, 'protocol') === protocol);
  const number = isJsonObject(named) ? named['containerPort'] : undefined;
  return typeof number === 'number' ? number : undefined;
}

/** Containers, and those init containers that go on running beside them. */
function containers(pod: KubeObject): readonly Json[] {
  const sidecars = listAt(pod, 'spec', 'initContainers').filter(
    (container) => textAt(container, 'restartPolicy') === 'Always',
  );
  return [...sidecars, ...listAt(pod, 'spec', 'containers')];
}

/** Whether a Service's pods are found by its selector; others have their endpoints by hand. */
export function selectsPods(service: KubeObject): boolean {
  const hasSelector = Object.keys(textMapAt(service, 'spec', 'selector')).length > 0;
  return hasSelector && textAt(service, 'spec', 'type') !== 'ExternalName';
}
