/** What of an update counts: identity stays, versions must match, spec and status are apart. */
import { badRequest, conflict, invalid } from './api-error.ts';
import { objectAt, sameJson, textAt, without, type JsonObject } from './json.ts';
import { readDraft } from './draft.ts';
import type { KindInfo } from './kinds.ts';
import type { KubeObject, ObjectMeta } from './object.ts';

export type Subresource = 'status';

interface UpdateRequest {
  readonly kind: KindInfo;
  readonly old: KubeObject;
  readonly draft: JsonObject;
  readonly subresource: Subresource | undefined;
}

/**
 * The object an update asks for, before defaults and validation.
 *
 * @throws {ApiError} BadRequest for another name, Conflict for another version or uid
 */
export function admitUpdate({ kind, old, draft, subresource }: UpdateRequest): KubeObject {
  const given = readDraft(kind, draft);
  checkIdentity(kind, old, given.metadata);
  const metadata = updatedMeta(kind, old, given.metadata);
  const parts = subresource === 'status' ? statusOnly(old, given) : specOnly(kind, old, given);
  return { ...parts, apiVersion: old.apiVersion, kind: old.kind, metadata };
}

function checkIdentity(kind: KindInfo, old: KubeObject, given: JsonObject): void {
  const name = textAt(given, 'name');
  if (name !== '' && name !== old.metadata.name) {
    throw badRequest(
      `the name of the object (${name}) does not match the name on the URL (${old.metadata.name})`,
    );
  }
  const namespace = textAt(given, 'namespace');
  if (namespace !== '' && namespace !== old.metadata.namespace) {
    throw badRequest(
      'the namespace of the provided object does not match the namespace sent on the request',
    );
  }
  checkPreconditions(kind, old, given);
}

/**
 * Refuses unless `resourceVersion` and `uid`, where given, are the object's.
 *
 * @throws {ApiError} Conflict
 */
export function checkPreconditions(kind: KindInfo, old: KubeObject, wanted: JsonObject): void {
  const uid = textAt(wanted, 'uid');
  if (uid !== '' && uid !== old.metadata.uid) {
    const why = `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid}`;
    throw conflict(kind, old.metadata.name, why);
  }
  const version = textAt(wanted, 'resourceVersion');
  if (version !== '' && version !== '0' && version !== old.metadata.resourceVersion) {
    const why =
      'the object has been modified; please apply your changes to the latest version and try again';
    throw conflict(kind, old.metadata.name, why);
  }
}

/** Kept from the old object whatever the client sends. */
const fixedMeta = [
  'name',
  'namespace',
  'uid',
  'resourceVersion',
  'generation',
  'creationTimestamp',
  'deletionTimestamp',
  'deletionGracePeriodSeconds',
  'generateName',
] as const;

function updatedMeta(kind: KindInfo, old: KubeObject, given: JsonObject): ObjectMeta {
  const fixed = Object.fromEntries(
    fixedMeta
      .filter((key) => old.metadata[key] !== undefined)
      .map((key) => [key, old.metadata[key]]),
  );
  // Only an explicit empty list ends what appliers own; a client that leaves it out keeps it.
  const managedFields = given['managedFields'] ?? old.metadata['managedFields'];
  const metadata = {
    ...without(given, ...fixedMeta, 'selfLink', 'managedFields'),
    ...(managedFields === undefined ? {} : { managedFields }),
    ...fixed,
  } as ObjectMeta;
  const added = (metadata.finalizers ?? []).filter(
    (finalizer) => !(old.metadata.finalizers ?? []).includes(finalizer),
  );
  if (old.metadata.deletionTimestamp !== undefined && added.length > 0) {
    const message = `Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers ${JSON.stringify(added)}`;
    const error = { field: 'metadata.finalizers', reason: 'FieldValueForbidden', message } as const;
    throw invalid(kind, old.metadata.name, [error]);
  }
  return metadata;
}

function statusOnly(old: KubeObject, given: JsonObject): JsonObject {
  const kept = without(old, 'status');
  return given['status'] === undefined ? kept : { ...kept, status: given['status'] };
}

function specOnly(kind: KindInfo, old: KubeObject, given: JsonObject): JsonObject {
  if (!kind.hasStatus) return given;
  const kept = without(given, 'status');
  return old['status'] === undefined ? kept : { ...kept, status: objectAt(old, 'status') };
}

/** What a new generation stands for: all but metadata and status. */
function content(object: KubeObject): JsonObject {
  return without(object, 'metadata', 'status');
}

/** The object with its generation counted on where more than metadata and status differ. */
export function withNextGeneration(object: KubeObject, old: KubeObject): KubeObject {
  if (sameJson(content(object), content(old))) return object;
  const generation = (old.metadata.generation ?? 0) + 1;
  return { ...object, metadata: { ...object.metadata, generation } };
}

/** Whether storing `object` over `old` would change anything but the version. */
export function sameObject(object: KubeObject, old: KubeObject): boolean {
  return sameJson(withoutVersion(object), withoutVersion(old));
}

function withoutVersion(object: KubeObject): JsonObject {
  return { ...object, metadata: without(object.metadata, 'resourceVersion', 'generation') };
}
