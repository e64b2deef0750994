/**
 * Server-side apply (KEP-555): creates what is not there, merges into what is, and removes what
 * its manager applied before and leaves out now. Only appliers own fields here; what others write
 * by update or patch belongs to nobody and is overwritten without a conflict.
 */
import { applyConflict, badRequest, type FieldError } from './api-error.ts';
import {
  fieldAt,
  fieldsAlong,
  fieldsOf,
  fieldsWithout,
  mergeFields,
  readablePath,
  removeFields,
  sharedPaths,
  type FieldPlace,
} from './applied-fields.ts';
import type { Core } from './core.ts';
import { asVersion, readDraft } from './draft.ts';
import {
  isJsonObject,
  listAt,
  objectAt,
  sameJson,
  textAt,
  without,
  type Json,
  type JsonObject,
} from './json.ts';
import { apiVersionOf, resourceOf, type KindInfo } from './kinds.ts';
import { timestamp, type KubeObject } from './object.ts';
import type { ObjectRef, WriteOptions } from './operations.ts';

export interface ApplyOptions extends WriteOptions {
  /** Who applies: owns the fields applied until the next time. */
  readonly fieldManager: string;
  /** Take over fields that other managers applied with other values. */
  readonly force: boolean;
}

export interface Applied {
  readonly object: KubeObject;
  readonly isNew: boolean;
}

/**
 * Applies a configuration to an object.
 *
 * @throws {ApiError} Conflict naming the fields others own, and what create and update throw
 */
export function applyObject(
  core: Core,
  ref: ObjectRef,
  applied: JsonObject,
  options: ApplyOptions,
): Applied {
  const config = readConfig(ref, applied);
  const place: FieldPlace = { resource: resourceOf(ref.kind), path: '' };
  const mine = fieldsOf(ownable(config), place);
  const now = timestamp(core.clock.now());
  const found = core.operations.find(ref);
  if (found === undefined) {
    const draft = withManagers(config, [managerEntry(ref.kind, options, mine, now)]);
    const object = core.operations.create(ref.kind, ref.namespace, draft, options);
    return { object, isNew: true };
  }
  const live = asVersion(found, ref.kind);
  const managers = listAt(live, 'metadata', 'managedFields');
  const before = managers.find((entry) => isEntryOf(entry, options));
  const others = settle(
    managers.filter((entry) => entry !== before),
    mine,
    { live, merged: mergeFields(live, config, place), place, force: options.force },
  );
  const kept = others.map((entry) => objectAt(entry, 'fieldsV1'));
  const gone = kept.reduce(fieldsWithout, fieldsWithout(objectAt(before, 'fieldsV1'), mine));
  const merged = mergeFields(removeFields(live, gone, place), config, place);
  const isSame = sameJson(objectAt(before, 'fieldsV1'), mine);
  const entry =
    isSame && before !== undefined ? before : managerEntry(ref.kind, options, mine, now);
  const draft = withManagers(merged, [...others, entry]);
  return { object: core.update(ref, draft, options), isNew: false };
}

function readConfig(ref: ObjectRef, applied: JsonObject): JsonObject {
  const config = readDraft(ref.kind, applied);
  const name = textAt(config.metadata, 'name');
  if (name !== '' && name !== ref.name) {
    throw badRequest(
      `the name of the object (${name}) does not match the name on the URL (${ref.name})`,
    );
  }
  if (config.metadata['managedFields'] !== undefined) {
    throw badRequest('metadata.managedFields must be nil');
  }
  return { ...config, metadata: { ...config.metadata, name: ref.name } };
}

/** The part of a configuration that is owned: its identity is not. */
function ownable(config: JsonObject): JsonObject {
  const metadata = without(
    objectAt(config, 'metadata'),
    'name',
    'namespace',
    'uid',
    'resourceVersion',
    'creationTimestamp',
    'generation',
  );
  const rest = without(config, 'apiVersion', 'kind', 'metadata');
  return Object.keys(metadata).length === 0 ? rest : { ...rest, metadata };
}

interface Contest {
  readonly live: KubeObject;
  /** What would become of it. */
  readonly merged: JsonObject;
  readonly place: FieldPlace;
  readonly force: boolean;
}

/** The other managers' entries, without the fields that go over by force. */
function settle(
  others: readonly Json[],
  mine: JsonObject,
  { live, merged, place, force }: Contest,
): readonly Json[] {
  const causes: FieldError[] = [];
  const left = others.flatMap((entry) => {
    const theirs = objectAt(entry, 'fieldsV1');
    const contested = sharedPaths(mine, theirs).filter(
      (path) => !sameJson(fieldAt(live, path, place), fieldAt(merged, path, place)),
    );
    for (const path of contested) {
      const message = `conflict with ${JSON.stringify(textAt(entry, 'manager'))}`;
      causes.push({ field: readablePath(path), reason: 'FieldManagerConflict', message });
    }
    const rest = contested.map(fieldsAlong).reduce(fieldsWithout, theirs);
    return isJsonObject(entry) ? [{ ...entry, fieldsV1: rest }] : [];
  });
  if (causes.length > 0 && !force) throw applyConflict(causes);
  return left.filter((entry) => Object.keys(entry.fieldsV1).length > 0);
}

function managerEntry(
  kind: KindInfo,
  { fieldManager, subresource }: ApplyOptions,
  fields: JsonObject,
  time: string,
): JsonObject {
  return {
    manager: fieldManager,
    operation: 'Apply',
    apiVersion: apiVersionOf(kind),
    time,
    fieldsType: 'FieldsV1',
    fieldsV1: fields,
    ...(subresource === undefined ? {} : { subresource }),
  };
}

function isEntryOf(entry: Json, { fieldManager, subresource }: ApplyOptions): boolean {
  return (
    textAt(entry, 'manager') === fieldManager &&
    textAt(entry, 'operation') === 'Apply' &&
    textAt(entry, 'subresource') === (subresource ?? '')
  );
}

function withManagers(object: JsonObject, managedFields: readonly Json[]): JsonObject {
  return { ...object, metadata: { ...objectAt(object, 'metadata'), managedFields } };
}
