/**
 * How lists of the built-in kinds merge, as their Go types declare it (k8s.io/api: patchMergeKey
 * for strategic merge patch, listMapKey and listType for server-side apply). Lists that are not
 * here are atomic: the new one replaces the old one.
 */
import type { Json } from './json.ts';

export interface ListMerge {
  /** Key of strategic merge; undefined for a list of plain values, merged as a set. */
  readonly key: string | undefined;
  /** Keys that identify an item in server-side apply, with the value an absent one stands for. */
  readonly applyKeys: readonly { readonly name: string; readonly absent?: Json }[];
}

const byKey = (name: string): ListMerge => ({ key: name, applyKeys: [{ name }] });
const asSet: ListMerge = { key: undefined, applyKeys: [] };
const protocol = { name: 'protocol', absent: 'TCP' } as const;

const metadata: Readonly<Record<string, ListMerge>> = {
  'metadata.finalizers': asSet,
  'metadata.ownerReferences': byKey('uid'),
};

const conditions = { 'status.conditions': byKey('type') };

const container = (path: string): Readonly<Record<string, ListMerge>> => ({
  [path]: byKey('name'),
  [`${path}.ports`]: { key: 'containerPort', applyKeys: [{ name: 'containerPort' }, protocol] },
  [`${path}.env`]: byKey('name'),
  [`${path}.volumeMounts`]: byKey('mountPath'),
  [`${path}.volumeDevices`]: byKey('devicePath'),
});

const byResource: Readonly<Record<string, Readonly<Record<string, ListMerge>>>> = {
  namespaces: conditions,
  nodes: {
    ...conditions,
    'spec.podCIDRs': asSet,
    'status.addresses': byKey('type'),
  },
  pods: {
    ...conditions,
    ...container('spec.containers'),
    ...container('spec.initContainers'),
    ...container('spec.ephemeralContainers'),
    'spec.volumes': byKey('name'),
    'spec.imagePullSecrets': byKey('name'),
    'spec.hostAliases': byKey('ip'),
    'spec.schedulingGates': byKey('name'),
    'spec.topologySpreadConstraints': {
      key: 'topologyKey',
      applyKeys: [{ name: 'topologyKey' }, { name: 'whenUnsatisfiable' }],
    },
    'status.podIPs': byKey('ip'),
    'status.hostIPs': byKey('ip'),
  },
  services: {
    ...conditions,
    'spec.ports': { key: 'port', applyKeys: [{ name: 'port' }, protocol] },
  },
};

/** How the list at `path` ("spec.ports") of a resource merges; undefined = atomic. */
export function listMerge(resource: string, path: string): ListMerge | undefined {
  return metadata[path] ?? byResource[resource]?.[path];
}
