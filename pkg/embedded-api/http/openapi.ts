/**
 * OpenAPI v3, as much as kubectl needs: `apply` looks for the patch operation of a kind and its
 * query parameters, `explain` for the kind's schema.
 */
import type { JsonObject } from '#pkg/embedded-api/json.ts';
import { apiVersionOf, type KindInfo, type KindRegistry } from '#pkg/embedded-api/kinds.ts';

/** The document at a path under `/openapi/v3`; undefined where there is none. */
export function openApiDocument(path: string, kinds: KindRegistry): JsonObject | undefined {
  const parts = path.split('/').filter((part) => part !== '');
  if (parts[0] !== 'openapi' || parts[1] !== 'v3') return undefined;
  const group = parts.slice(2).join('/');
  if (group === '') return index(kinds);
  const served = kinds.all.filter((kind) => documentPath(kind) === group);
  return served.length === 0 ? undefined : groupDocument(served);
}

function index(kinds: KindRegistry): JsonObject {
  const paths = [...new Set(kinds.all.map(documentPath))].map((path) => {
    // kubectl keeps documents by this URL; the hash tells it when the kinds changed.
    const hash = kinds.all.filter((kind) => documentPath(kind) === path).length;
    return [path, { serverRelativeURL: `/openapi/v3/${path}?hash=${hash}` }] as const;
  });
  return { paths: Object.fromEntries(paths) };
}

/** "api/v1" or "apis/discovery.k8s.io/v1". */
function documentPath(kind: KindInfo): string {
  return kind.group === '' ? `api/${kind.version}` : `apis/${kind.group}/${kind.version}`;
}

function groupDocument(kinds: readonly KindInfo[]): JsonObject {
  return {
    openapi: '3.0.0',
    info: { title: 'Kubernetes', version: 'unversioned' },
    paths: Object.fromEntries(kinds.map((kind) => [objectPath(kind), operations(kind)])),
    components: {
      schemas: Object.fromEntries(kinds.map((kind) => [schemaName(kind), schema(kind)])),
    },
  };
}

function objectPath(kind: KindInfo): string {
  const scope = kind.namespaced ? 'namespaces/{namespace}/' : '';
  return `/${documentPath(kind)}/${scope}${kind.plural}/{name}`;
}

function operations(kind: KindInfo): JsonObject {
  const operation = (action: string): JsonObject => ({
    'x-kubernetes-action': action,
    'x-kubernetes-group-version-kind': kindName(kind),
    parameters: ['dryRun', 'fieldManager', 'fieldValidation', 'force'].map((name) => ({
      name,
      in: 'query',
      schema: { type: name === 'force' ? 'boolean' : 'string', uniqueItems: true },
    })),
    responses: {
      '200': {
        description: 'OK',
        content: { 'application/json': { schema: { $ref: reference(kind) } } },
      },
    },
  });
  return { get: operation('get'), put: operation('put'), patch: operation('patch') };
}

function schema(kind: KindInfo): JsonObject {
  return {
    type: 'object',
    ...kind.schema,
    'x-kubernetes-group-version-kind': [kindName(kind)],
  };
}

function kindName({ group, version, kind }: KindInfo): JsonObject {
  return { group, version, kind };
}

function schemaName(kind: KindInfo): string {
  return `${apiVersionOf(kind).replaceAll('/', '.')}.${kind.kind}`;
}

function reference(kind: KindInfo): string {
  return `#/components/schemas/${schemaName(kind)}`;
}
