/** What a path names: an object, a collection, or something that is no resource. */
import { pathNotFound } from '#pkg/embedded-api/api-error.ts';
import type { KindInfo, KindRegistry } from '#pkg/embedded-api/kinds.ts';

export interface ResourceTarget {
  readonly kind: KindInfo;
  /** Empty = cluster-scoped, or all namespaces. */
  readonly namespace: string;
  /** Empty = the collection. */
  readonly name: string;
  /** Empty = the object itself. */
  readonly subresource: string;
}

/**
 * The resource a path names; undefined for paths outside `/api/v1/…` and `/apis/<group>/<version>/…`.
 *
 * @throws {ApiError} NotFound for a kind or subresource that is not served
 */
export function parseTarget(path: string, kinds: KindRegistry): ResourceTarget | undefined {
  const parts = path.split('/').filter((part) => part !== '');
  const decoded = parts.map(decodePart);
  const isCore = decoded[0] === 'api';
  if (!isCore && decoded[0] !== 'apis') return undefined;
  const group = isCore ? '' : (decoded[1] ?? '');
  const version = decoded[isCore ? 1 : 2] ?? '';
  const rest = decoded.slice(isCore ? 2 : 3);
  if (rest.length === 0) return undefined;
  const find = (plural: string | undefined): KindInfo => {
    const kind = plural === undefined ? undefined : kinds.byPath(group, version, plural);
    if (kind === undefined) throw pathNotFound();
    return kind;
  };
  const [first, second, third] = rest;
  // /namespaces/x/status is the Namespace's own; /namespaces/x/pods is what is in it.
  const isInside =
    first === 'namespaces' && third !== undefined && !namespaceSubresources.has(third);
  const [kind, namespace, tail] = isInside
    ? [find(third), second ?? '', rest.slice(3)]
    : [find(first), '', rest.slice(1)];
  const [name = '', subresource = '', ...tooMany] = tail;
  const isAllNamespaces = kind.namespaced && !isInside;
  if (tooMany.length > 0 || (isInside && !kind.namespaced)) throw pathNotFound();
  if (isAllNamespaces && name !== '') throw pathNotFound();
  if (subresource !== '' && !(subresource === 'status' && kind.hasStatus)) throw pathNotFound();
  return { kind, namespace, name, subresource };
}

const namespaceSubresources = new Set(['status', 'finalize']);

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw pathNotFound();
  }
}
