/**
 * Which EndpointSlices of a Service to write, and which to leave alone: every written slice is
 * sent to every node, so endpoints stay in the slice they are in. Pure.
 */
import {
  listAt,
  objectAt,
  sameJson,
  textAt,
  type Json,
  type JsonObject,
} from '#pkg/embedded-api/json.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import type { IpFamily } from '#pkg/embedded-api/admission/service-allocations.ts';
import type { EndpointGroup } from './pod-endpoints.ts';

export const managedByLabel = 'endpointslice.kubernetes.io/managed-by';
export const serviceNameLabel = 'kubernetes.io/service-name';
export const controllerName = 'endpointslice-controller.k8s.io';

/** kube-controller-manager's --max-endpoints-per-slice default. */
const maxEndpoints = 100;

/** One write. Slices to delete go last, so that no endpoint is ever missing. */
export type SliceStep =
  | { readonly op: 'create'; readonly slice: JsonObject }
  | { readonly op: 'delete'; readonly name: string }
  | { readonly op: 'update'; readonly slice: JsonObject };

/** Steps from the slices there are (ours, of this Service) to those its endpoints need. */
export function planSlices(
  service: KubeObject,
  groups: readonly EndpointGroup[],
  have: readonly KubeObject[],
): readonly SliceStep[] {
  const families = listAt(service, 'spec', 'ipFamilies').map((family) => textAt(family));
  const stale = have.filter((slice) => !families.includes(textAt(slice, 'addressType')));
  const steps = families.flatMap((family) => {
    const ofFamily = have.filter((slice) => textAt(slice, 'addressType') === family);
    const wanted = groups.filter((group) => group.family === family);
    const placeholder = { family: family as IpFamily, ports: [], endpoints: [] };
    // A Service without endpoints keeps one empty slice: clients can tell none from unknown.
    return planFamily(service, wanted.length === 0 ? [placeholder] : wanted, ofFamily);
  });
  return [
    ...steps.filter((step) => step.op !== 'delete'),
    ...steps.filter(isDelete),
    ...stale.map(deletion),
  ];
}

function planFamily(
  service: KubeObject,
  groups: readonly EndpointGroup[],
  have: readonly KubeObject[],
): readonly SliceStep[] {
  const free = new Set(have);
  const steps = groups.flatMap((group) => {
    const mine = have.filter((slice) => free.has(slice) && sameJson(portsOf(slice), group.ports));
    for (const slice of mine) free.delete(slice);
    return planGroup(service, group, mine);
  });
  return recycled([...steps, ...[...free].map(deletion)], have);
}

/** A slice to delete takes up what a new one would hold: one write in place of two. */
function recycled(steps: readonly SliceStep[], have: readonly KubeObject[]): readonly SliceStep[] {
  const spare = steps.flatMap((step) => (step.op === 'delete' ? [step.name] : []));
  const written = steps.flatMap((step): SliceStep[] => {
    if (step.op === 'delete') return [];
    const slice = step.op === 'create' ? bySliceName(have, spare.shift()) : undefined;
    if (slice === undefined) return [step];
    const { endpoints, ports } = step.slice as { endpoints?: Json; ports?: Json };
    const labels = objectAt(step.slice, 'metadata', 'labels');
    const metadata = { ...slice.metadata, labels };
    return [{ op: 'update', slice: { ...slice, endpoints, ports, metadata } }];
  });
  return [...written, ...spare.map((name) => ({ op: 'delete', name }) as const)];
}

function bySliceName(
  slices: readonly KubeObject[],
  name: string | undefined,
): KubeObject | undefined {
  return slices.find((slice) => slice.metadata.name === name);
}

/** Packs a group: what is in a slice stays there, then gaps are filled, then slices added. */
function planGroup(
  service: KubeObject,
  group: EndpointGroup,
  have: readonly KubeObject[],
): readonly SliceStep[] {
  const missing = new Map(group.endpoints.map((endpoint) => [identity(endpoint), endpoint]));
  const kept = have.map((slice) => {
    const endpoints = listAt(slice, 'endpoints').flatMap((endpoint) => {
      const wanted = missing.get(identity(endpoint));
      missing.delete(identity(endpoint));
      return wanted === undefined ? [] : [wanted];
    });
    return { slice, endpoints };
  });
  const rest = [...missing.values()];
  // Only slices that change anyway are filled, and the last one; full rewrites help nobody.
  const steps: SliceStep[] = [];
  const isOnlyEmpty = kept.every(({ endpoints }) => endpoints.length === 0) && rest.length === 0;
  for (const [i, { slice, endpoints }] of kept.entries()) {
    const isChanged = !sameJson(endpoints, listAt(slice, 'endpoints'));
    const canFill = isChanged || i === kept.length - 1;
    const filled = canFill
      ? [...endpoints, ...rest.splice(0, maxEndpoints - endpoints.length)]
      : endpoints;
    const keepsPlace = isOnlyEmpty && i === 0;
    if (filled.length === 0 && !keepsPlace) {
      steps.push(deletion(slice));
      continue;
    }
    const wanted = { ...slice, ...content(service, group, filled, slice) };
    if (!sameJson(wanted, slice)) steps.push({ op: 'update', slice: wanted });
  }
  for (let i = 0; i < rest.length; i += maxEndpoints) {
    steps.push({ op: 'create', slice: newSlice(service, group, rest.slice(i, i + maxEndpoints)) });
  }
  if (kept.length === 0 && group.endpoints.length === 0) {
    steps.push({ op: 'create', slice: newSlice(service, group, []) });
  }
  return steps;
}

function newSlice(
  service: KubeObject,
  group: EndpointGroup,
  endpoints: readonly Json[],
): JsonObject {
  const { name, namespace = '', uid } = service.metadata;
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    ...content(service, group, endpoints, undefined),
    metadata: {
      generateName: `${name}-`,
      namespace,
      labels: sliceLabels(service),
      ownerReferences: [
        {
          apiVersion: 'v1',
          kind: 'Service',
          name,
          uid,
          controller: true,
          blockOwnerDeletion: true,
        },
      ],
    },
  };
}

function content(
  service: KubeObject,
  group: EndpointGroup,
  endpoints: readonly Json[],
  slice: KubeObject | undefined,
): JsonObject {
  return {
    addressType: group.family,
    endpoints,
    ports: group.ports,
    ...(slice === undefined
      ? {}
      : { metadata: { ...slice.metadata, labels: sliceLabels(service) } }),
  };
}

/** The Service's own labels with those that say whose slice this is. */
function sliceLabels(service: KubeObject): Readonly<Record<string, string>> {
  const isHeadless = textAt(service, 'spec', 'clusterIP') === 'None';
  return {
    ...service.metadata.labels,
    ...(isHeadless ? { 'service.kubernetes.io/headless': '' } : {}),
    [managedByLabel]: controllerName,
    [serviceNameLabel]: service.metadata.name,
  };
}

function portsOf(slice: KubeObject): Json {
  return listAt(slice, 'ports');
}

/** A pod's endpoint, across changes of its readiness. */
function identity(endpoint: Json): string {
  return `${textAt(endpoint, 'targetRef', 'uid')} ${textAt(listAt(endpoint, 'addresses')[0])}`;
}

function deletion(slice: KubeObject): SliceStep {
  return { op: 'delete', name: slice.metadata.name };
}

function isDelete(step: SliceStep): boolean {
  return step.op === 'delete';
}
