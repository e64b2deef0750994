/** In which form a client wants objects: as they are, as table rows, or only their metadata. */
import { without, type JsonObject } from '#pkg/embedded-api/json.ts';
import { apiVersionOf, type KindInfo } from '#pkg/embedded-api/kinds.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import {
  columnDefinitions,
  metadataOnly,
  tableRow,
  type RowObject,
} from '#pkg/embedded-api/table.ts';
import type { Exchange } from './exchange.ts';

export interface Representation {
  readonly form: 'Object' | 'PartialObjectMetadata' | 'Table';
  /** What table rows carry of their object. */
  readonly rowObject: RowObject;
}

const asObjects: Representation = { form: 'Object', rowObject: 'Metadata' };

/** The first form of the Accept header that is served; plain JSON where none is. */
export function representationOf(exchange: Exchange): Representation {
  for (const range of exchange.header('accept').split(',')) {
    const [type = '', ...parameters] = range.split(';').map((part) => part.trim());
    if (type !== 'application/json' && type !== '*/*' && type !== 'application/*') continue;
    const as = parameters.find((parameter) => parameter.startsWith('as='))?.slice(3);
    if (as === undefined) return asObjects;
    if (!parameters.includes('g=meta.k8s.io') || !parameters.includes('v=v1')) continue;
    if (as === 'Table') return { form: 'Table', rowObject: rowObjectOf(exchange.query) };
    if (as === 'PartialObjectMetadata' || as === 'PartialObjectMetadataList') {
      return { form: 'PartialObjectMetadata', rowObject: 'None' };
    }
  }
  return asObjects;
}

/** One object in the form asked for. */
export function represent(
  kind: KindInfo,
  object: KubeObject,
  { form, rowObject }: Representation,
  nowMs: number,
): JsonObject {
  switch (form) {
    case 'Object':
      return object;
    case 'PartialObjectMetadata':
      return metadataOnly(object);
    case 'Table':
      return {
        kind: 'Table',
        apiVersion: 'meta.k8s.io/v1',
        metadata: { resourceVersion: object.metadata.resourceVersion },
        columnDefinitions: columnDefinitions(kind),
        rows: [tableRow(kind, object, rowObject, nowMs)],
      };
  }
}

/** One object of a list in the form asked for: a row, or an object without what the list says. */
export function listItem(
  kind: KindInfo,
  object: KubeObject,
  { form, rowObject }: Representation,
  nowMs: number,
): JsonObject {
  if (form === 'Table') return tableRow(kind, object, rowObject, nowMs);
  if (form === 'PartialObjectMetadata') return metadataOnly(object);
  // As kube-apiserver writes them: built-in types carry no kind in a list, custom ones do.
  return kind.custom ? object : without(object, 'apiVersion', 'kind');
}

/** What a list says before its items, and under which key they follow. */
export function listHead(
  kind: KindInfo,
  metadata: JsonObject,
  { form }: Representation,
): { readonly head: JsonObject; readonly itemsKey: string } {
  switch (form) {
    case 'Table':
      return {
        head: {
          kind: 'Table',
          apiVersion: 'meta.k8s.io/v1',
          metadata,
          columnDefinitions: columnDefinitions(kind),
        },
        itemsKey: 'rows',
      };
    case 'PartialObjectMetadata':
      return {
        head: { kind: 'PartialObjectMetadataList', apiVersion: 'meta.k8s.io/v1', metadata },
        itemsKey: 'items',
      };
    case 'Object':
      return {
        head: { kind: `${kind.kind}List`, apiVersion: apiVersionOf(kind), metadata },
        itemsKey: 'items',
      };
  }
}

function rowObjectOf(query: URLSearchParams): RowObject {
  const include = query.get('includeObject');
  return include === 'None' || include === 'Object' ? include : 'Metadata';
}
