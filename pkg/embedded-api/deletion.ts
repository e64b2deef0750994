/**
 * Deletion as the API promises it: preconditions, finalizers, a grace period for Pods when asked
 * for one, Namespaces and definitions together with what is in them.
 */
import { badRequest, forbidden } from './api-error.ts';
import { isJsonArray, objectAt, textAt, valueAt, type JsonObject } from './json.ts';
import { isNamespaceKind, resourceOf, type KindInfo, type KindRegistry } from './kinds.ts';
import { checkPreconditions } from './object-update.ts';
import type { KubeObject } from './object.ts';
import type { ObjectRef, Operations } from './operations.ts';

/** `meta/v1 DeleteOptions`, the parts that have a meaning here. */
export interface DeleteOptions {
  readonly dryRun?: boolean;
  /** Seconds; undefined = at once, since no kubelet would confirm the end of a Pod. */
  readonly gracePeriodSeconds?: number;
  readonly preconditions?: JsonObject;
}

/** What became of an object: `gone`, or still there and waiting. */
export interface Deletion {
  readonly gone: boolean;
  readonly object: KubeObject;
}

/** Namespaces no cluster is without. */
const permanentNamespaces = new Set(['default', 'kube-system', 'kube-public']);

/**
 * Deletes an object, or marks it when finalizers or a grace period keep it.
 *
 * @throws {ApiError} NotFound, Conflict (preconditions), Forbidden
 */
export function deleteObject(
  operations: Operations,
  kinds: KindRegistry,
  ref: ObjectRef,
  options: DeleteOptions = {},
): Deletion {
  const object = operations.get(ref);
  checkPreconditions(ref.kind, object, options.preconditions ?? {});
  if (isNamespaceKind(ref.kind) && permanentNamespaces.has(ref.name)) {
    throw forbidden(`namespaces "${ref.name}" is forbidden: this namespace may not be deleted`);
  }
  if (options.dryRun === true) return { gone: true, object };
  if (isNamespaceKind(ref.kind)) return deleteNamespace(operations, kinds, ref);
  if (ref.kind.plural === 'customresourcedefinitions') deleteInstances(operations, object);
  const graceSeconds = graceOf(ref.kind, object, options);
  const waits = (object.metadata.finalizers ?? []).length > 0 || graceSeconds > 0;
  if (!waits) return { gone: true, object: operations.remove(ref) ?? object };
  const soonest = object.metadata.deletionGracePeriodSeconds ?? Infinity;
  const isMarked = object.metadata.deletionTimestamp !== undefined && soonest <= graceSeconds;
  return { gone: false, object: isMarked ? object : operations.markDeleted(ref, graceSeconds) };
}

/**
 * Removes a Namespace that waits for its contents, once the last is gone. To be called after
 * every removal.
 */
export function endNamespaceIfEmpty(
  operations: Operations,
  kinds: KindRegistry,
  name: string,
): void {
  const kind = kinds.byKind('v1', 'Namespace');
  const namespace = operations.storage.get('namespaces', name);
  if (kind === undefined || namespace?.metadata.deletionTimestamp === undefined) return;
  if ((namespace.metadata.finalizers ?? []).length > 0) return;
  if (contentsOf(operations, kinds, name).length > 0) return;
  operations.remove({ kind, namespace: '', name });
}

/**
 * A DELETE body and query as options.
 *
 * @throws {ApiError} BadRequest
 */
export function readDeleteOptions(body: JsonObject, query: URLSearchParams): DeleteOptions {
  const given = valueAt(body, 'gracePeriodSeconds') ?? query.get('gracePeriodSeconds');
  const graceSeconds = given === null || given === undefined ? undefined : Number(given);
  if (graceSeconds !== undefined && !(Number.isInteger(graceSeconds) && graceSeconds >= 0)) {
    throw badRequest(`gracePeriodSeconds: expected a whole number, got ${JSON.stringify(given)}`);
  }
  const dryRun = valueAt(body, 'dryRun');
  return {
    dryRun: (isJsonArray(dryRun) && dryRun.includes('All')) || query.get('dryRun') === 'All',
    preconditions: objectAt(body, 'preconditions'),
    ...(graceSeconds === undefined ? {} : { gracePeriodSeconds: graceSeconds }),
  };
}

/** Pods that run somewhere may be given time, as long as the client says how long. */
function graceOf(kind: KindInfo, object: KubeObject, options: DeleteOptions): number {
  const isPod = kind.group === '' && kind.plural === 'pods';
  const isEnded = ['Failed', 'Succeeded'].includes(textAt(object, 'status', 'phase'));
  if (!isPod || isEnded || textAt(object, 'spec', 'nodeName') === '') return 0;
  return options.gracePeriodSeconds ?? 0;
}

function deleteNamespace(operations: Operations, kinds: KindRegistry, ref: ObjectRef): Deletion {
  const found = operations.get(ref);
  const marked =
    found.metadata.deletionTimestamp === undefined ? operations.markDeleted(ref, 0) : found;
  for (const content of contentsOf(operations, kinds, ref.name)) {
    deleteObject(operations, kinds, content);
  }
  endNamespaceIfEmpty(operations, kinds, ref.name);
  const left = operations.find(ref);
  return left === undefined ? { gone: true, object: marked } : { gone: false, object: left };
}

function contentsOf(
  operations: Operations,
  kinds: KindRegistry,
  namespace: string,
): readonly ObjectRef[] {
  const byResource = new Map(
    kinds.all.filter((kind) => kind.namespaced).map((kind) => [resourceOf(kind), kind]),
  );
  return [...byResource].flatMap(([resource, kind]) =>
    operations.storage
      .snapshot(resource, `${namespace}/`)
      .entries.map(([, object]) => ({ kind, namespace, name: object.metadata.name })),
  );
}

/** Instances go at once: with their kind gone, nobody could remove their finalizers. */
function deleteInstances({ storage }: Operations, definition: KubeObject): void {
  const resource = definition.metadata.name;
  for (const [key] of storage.snapshot(resource).entries) storage.remove(resource, key);
}
