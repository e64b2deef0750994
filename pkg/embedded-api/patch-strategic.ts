/**
 * Strategic merge patch: merge patch that also merges lists by key, with its directives `$patch`,
 * `$retainKeys`, `$setElementOrder/<list>` and `$deleteFromPrimitiveList/<list>`
 * (sig-api-machinery's strategic-merge-patch.md; apimachinery pkg/util/strategicpatch/patch.go).
 */
import { badRequest } from './api-error.ts';
import {
  define,
  isJsonArray,
  isJsonObject,
  listAt,
  sameJson,
  valueAt,
  without,
  type Json,
  type JsonObject,
} from './json.ts';
import { listMerge } from './merge-keys.ts';

/** Where in an object of which resource a merge is: decides how lists merge. */
interface Place {
  readonly resource: string;
  readonly path: string;
}

/**
 * `target`, an object of `resource`, with the patch merged in.
 *
 * @throws {ApiError} BadRequest for an unknown directive or list items without their merge key
 */
export function strategicMergePatch(
  target: JsonObject,
  patch: JsonObject,
  resource: string,
): JsonObject {
  return mergeObject(target, patch, { resource, path: '' }) ?? {};
}

/** Undefined when the patch deletes the object. */
function mergeObject(target: JsonObject, patch: JsonObject, place: Place): JsonObject | undefined {
  const directive = patch['$patch'];
  if (directive === 'replace') return without(patch, '$patch');
  if (directive === 'delete') return undefined;
  if (directive !== undefined && directive !== 'merge') {
    throw badRequest(`Unknown patch directive: ${JSON.stringify(directive)}`);
  }
  const merged = retained(target, patch) as Record<string, Json>;
  for (const key of patchedFields(patch)) {
    const path = place.path === '' ? key : `${place.path}.${key}`;
    const have = Object.hasOwn(merged, key) ? merged[key] : undefined;
    const next = mergeField(have, key, patch, { ...place, path });
    if (next === undefined) delete merged[key];
    else define(merged, key, next);
  }
  return merged;
}

/** A copy of `target`, with only the keys of `$retainKeys` where the patch has that directive. */
function retained(target: JsonObject, patch: JsonObject): JsonObject {
  const keep = patch['$retainKeys'];
  if (!isJsonArray(keep)) return without(target);
  return Object.fromEntries(Object.entries(target).filter(([key]) => keep.includes(key)));
}

const listDirective = /^\$(?:setElementOrder|deleteFromPrimitiveList)\/(?<list>.*)$/s;

/** Fields the patch says anything about, itself or by a directive. */
function patchedFields(patch: JsonObject): ReadonlySet<string> {
  const fields = Object.keys(patch)
    .filter((key) => key !== '$patch' && key !== '$retainKeys')
    .map((key) => listDirective.exec(key)?.groups?.['list'] ?? key);
  return new Set(fields);
}

function mergeField(
  have: Json | undefined,
  key: string,
  patch: JsonObject,
  place: Place,
): Json | undefined {
  const value = Object.hasOwn(patch, key) ? patch[key] : undefined;
  if (value === null) return undefined;
  if (isJsonObject(value)) return mergeObject(isJsonObject(have) ? have : {}, value, place);
  if (value !== undefined && !isJsonArray(value)) return value;
  const rule = listMerge(place.resource, place.path);
  if (rule === undefined) return value ?? have;
  const gone = listAt(patch, `$deleteFromPrimitiveList/${key}`);
  const before = (isJsonArray(have) ? have : []).filter((item) => !gone.includes(item));
  const merged =
    rule.key === undefined
      ? [...new Set([...before, ...(value ?? [])])]
      : mergeKeyedList(before, value ?? [], rule.key, place);
  const order = patch[`$setElementOrder/${key}`];
  const ordered = isJsonArray(order) ? inOrder(merged, before, order, rule.key) : merged;
  return ordered.length === 0 && have === undefined && value === undefined ? undefined : ordered;
}

function mergeKeyedList(
  have: readonly Json[],
  patch: readonly Json[],
  key: string,
  place: Place,
): readonly Json[] {
  const isReplace = (item: Json): boolean => valueAt(item, '$patch') === 'replace';
  if (patch.some(isReplace)) return patch.filter((item) => !isReplace(item));
  const merged = [...have];
  for (const item of patch) {
    const identity = valueAt(item, key);
    if (!isJsonObject(item) || identity === undefined) {
      throw badRequest(`map: ${JSON.stringify(item)} does not contain declared merge key: ${key}`);
    }
    const index = merged.findIndex((other) => valueAt(other, key) === identity);
    const target = merged[index];
    const next = mergeObject(isJsonObject(target) ? target : {}, item, place);
    if (next === undefined)
      merged.splice(
        0,
        merged.length,
        ...merged.filter((other) => valueAt(other, key) !== identity),
      );
    else if (index < 0) merged.push(next);
    else merged[index] = next;
  }
  return merged;
}

/**
 * Items the order names come in that order; the others keep their place before those items that
 * they preceded (patch.go normalizeElementOrder).
 */
function inOrder(
  items: readonly Json[],
  before: readonly Json[],
  order: readonly Json[],
  key: string | undefined,
): readonly Json[] {
  const identity = (item: Json): Json | undefined =>
    key === undefined ? item : valueAt(item, key);
  const indexIn = (list: readonly Json[], item: Json): number =>
    list.findIndex((other) => sameJson(identity(other), identity(item)));
  const named = items
    .filter((item) => indexIn(order, item) >= 0)
    .toSorted((a, b) => indexIn(order, a) - indexIn(order, b));
  const others = items.filter((item) => indexIn(order, item) < 0);
  const result: Json[] = [];
  for (const item of named) {
    const place = indexIn(before, item);
    for (let other = others[0]; other !== undefined; other = others[0]) {
      const otherPlace = indexIn(before, other);
      if (place < 0 || otherPlace < 0 || otherPlace > place) break;
      result.push(other);
      others.shift();
    }
    result.push(item);
  }
  return [...result, ...others];
}
