/** Discovery: which groups, versions and resources there are. */
import { apiVersionOf, type KindInfo, type KindRegistry } from '#pkg/embedded-api/kinds.ts';
import type { JsonObject } from '#pkg/embedded-api/json.ts';

/** What `/version` says: the Kubernetes release whose behaviour is followed. */
export const versionInfo: JsonObject = {
  major: '1',
  minor: '34',
  gitVersion: 'v1.34.0+podwire-embedded',
  gitTreeState: 'clean',
  platform: 'linux/amd64',
};

const verbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];

/** The discovery document at a path; undefined where there is none. */
export function discoveryDocument(path: string, kinds: KindRegistry): JsonObject | undefined {
  const parts = path.split('/').filter((part) => part !== '');
  const [root, group = '', version = ''] = parts;
  if (root === 'api') {
    if (parts.length === 1) return { kind: 'APIVersions', versions: ['v1'] };
    return parts.length === 2 ? resourceList(kinds, '', group) : undefined;
  }
  if (root !== 'apis') return undefined;
  const groups = kinds.groups().filter((item) => item.group !== '');
  if (parts.length === 1) {
    return { kind: 'APIGroupList', apiVersion: 'v1', groups: groups.map(groupEntry) };
  }
  const found = groups.find((item) => item.group === group);
  if (found === undefined) return undefined;
  if (parts.length === 2) return { kind: 'APIGroup', apiVersion: 'v1', ...groupEntry(found) };
  return parts.length === 3 ? resourceList(kinds, group, version) : undefined;
}

/** Everything in one document, for clients that accept it (KEP-3352); undefined elsewhere. */
export function aggregatedDiscovery(path: string, kinds: KindRegistry): JsonObject | undefined {
  const wanted = path.replace(/\/$/, '');
  if (wanted !== '/api' && wanted !== '/apis') return undefined;
  const isCore = wanted === '/api';
  const groups = kinds.groups().filter((item) => (item.group === '') === isCore);
  return {
    kind: 'APIGroupDiscoveryList',
    apiVersion: 'apidiscovery.k8s.io/v2',
    metadata: {},
    items: groups.map(({ group, versions }) => ({
      metadata: isCore ? {} : { name: group },
      versions: versions.map((version) => ({
        version,
        freshness: 'Current',
        resources: kindsOf(kinds, group, version).map(aggregatedEntry),
      })),
    })),
  };
}

function resourceList(kinds: KindRegistry, group: string, version: string): JsonObject | undefined {
  const served = kindsOf(kinds, group, version);
  if (served.length === 0) return undefined;
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: apiVersionOf({ group, version }),
    resources: served.flatMap(resourceEntries),
  };
}

function resourceEntries(kind: KindInfo): readonly JsonObject[] {
  const entry = {
    name: kind.plural,
    singularName: kind.singular,
    namespaced: kind.namespaced,
    kind: kind.kind,
    verbs,
    ...(kind.shortNames.length === 0 ? {} : { shortNames: kind.shortNames }),
    ...(isInAll(kind) ? { categories: ['all'] } : {}),
  };
  if (!kind.hasStatus) return [entry];
  const status = {
    name: `${kind.plural}/status`,
    singularName: '',
    namespaced: kind.namespaced,
    kind: kind.kind,
    verbs: ['get', 'patch', 'update'],
  };
  return [entry, status];
}

function aggregatedEntry(kind: KindInfo): JsonObject {
  const { group, version } = kind;
  const responseKind = { group, version, kind: kind.kind };
  return {
    resource: kind.plural,
    responseKind,
    scope: kind.namespaced ? 'Namespaced' : 'Cluster',
    singularResource: kind.singular,
    verbs,
    ...(kind.shortNames.length === 0 ? {} : { shortNames: kind.shortNames }),
    ...(isInAll(kind) ? { categories: ['all'] } : {}),
    ...(kind.hasStatus
      ? {
          subresources: [
            { subresource: 'status', responseKind, verbs: ['get', 'patch', 'update'] },
          ],
        }
      : {}),
  };
}

function groupEntry(item: {
  readonly group: string;
  readonly versions: readonly string[];
}): JsonObject {
  const versions = item.versions.map((version) => ({
    groupVersion: `${item.group}/${version}`,
    version,
  }));
  return { name: item.group, versions, preferredVersion: versions[0] };
}

function kindsOf(kinds: KindRegistry, group: string, version: string): readonly KindInfo[] {
  return kinds.all.filter((kind) => kind.group === group && kind.version === version);
}

/** What `kubectl get all` shows. */
function isInAll(kind: KindInfo): boolean {
  return kind.group === '' && (kind.plural === 'pods' || kind.plural === 'services');
}
