/**
 * Sets of fields, as `metadata.managedFields` writes them (FieldsV1: `f:` a field, `k:` an item of
 * a list by its keys, `v:` an item of a set, `.` the item itself; an empty object ends a path).
 * What a server-side apply needs: the fields of a configuration, sums of it and differences.
 */
import { define, isJsonArray, isJsonObject, without, type Json, type JsonObject } from './json.ts';
import { listMerge, type ListMerge } from './merge-keys.ts';

/** Where in an object of which resource: decides how lists are cut into fields. */
export interface FieldPlace {
  readonly resource: string;
  /** "" or "spec.ports". */
  readonly path: string;
}

/** The fields a configuration sets. */
export function fieldsOf(value: JsonObject, place: FieldPlace): JsonObject {
  const fields: Record<string, Json> = {};
  for (const [key, inner] of Object.entries(value)) {
    if (inner !== undefined) define(fields, `f:${key}`, fieldsUnder(inner, childPlace(place, key)));
  }
  return fields;
}

/** The fields of `a` that are not in `b`. */
export function fieldsWithout(a: JsonObject, b: JsonObject): JsonObject {
  const rest: Record<string, Json> = {};
  for (const [key, inner] of Object.entries(a)) {
    if (!isJsonObject(inner)) continue;
    const other = Object.hasOwn(b, key) ? b[key] : undefined;
    if (!isJsonObject(other)) define(rest, key, inner);
    else if (!isLeaf(inner) && !isLeaf(other)) {
      const left = fieldsWithout(inner, other);
      if (!isLeaf(left)) define(rest, key, left);
    }
  }
  return rest;
}

/** `value` without these fields, and without the objects and lists that leaves empty. */
export function removeFields(value: JsonObject, fields: JsonObject, place: FieldPlace): JsonObject {
  let kept = value;
  for (const [segment, inner] of Object.entries(fields)) {
    const key = segment.slice(2);
    const have = Object.hasOwn(kept, key) ? kept[key] : undefined;
    if (!segment.startsWith('f:') || have === undefined || !isJsonObject(inner)) continue;
    const left = isLeaf(inner) ? undefined : removeUnder(have, inner, childPlace(place, key));
    kept = left === undefined ? without(kept, key) : { ...kept, [key]: left };
  }
  return kept;
}

/** `value` with a configuration merged in; its list items come in the configuration's order. */
export function mergeFields(value: JsonObject, applied: JsonObject, place: FieldPlace): JsonObject {
  const merged = without(value) as Record<string, Json>;
  for (const [key, inner] of Object.entries(applied)) {
    if (inner === undefined) continue;
    const have = Object.hasOwn(merged, key) ? merged[key] : undefined;
    define(merged, key, mergeUnder(have, inner, childPlace(place, key)));
  }
  return merged;
}

/** One path into an object: `['f:spec', 'f:ports', 'k:{"port":80,"protocol":"TCP"}', 'f:name']`. */
export type FieldPath = readonly string[];

/** The paths both sets end in, or that end in one of them and go on in the other. */
export function sharedPaths(a: JsonObject, b: JsonObject): readonly FieldPath[] {
  return Object.entries(a).flatMap(([segment, inner]) => {
    const other = Object.hasOwn(b, segment) ? b[segment] : undefined;
    if (segment === '.' || !isJsonObject(inner) || !isJsonObject(other)) return [];
    if (isLeaf(inner) || isLeaf(other)) return [[segment]];
    return sharedPaths(inner, other).map((path) => [segment, ...path]);
  });
}

/** What lies at a path of an object; undefined where a step is missing. */
export function fieldAt(
  value: Json | undefined,
  path: FieldPath,
  place: FieldPlace,
): Json | undefined {
  const [segment, ...rest] = path;
  if (segment === undefined) return value;
  const key = segment.slice(2);
  if (segment.startsWith('f:')) {
    const inner = isJsonObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
    return fieldAt(inner, rest, childPlace(place, key));
  }
  const rule = listMerge(place.resource, place.path);
  if (rule === undefined || !isJsonArray(value)) return undefined;
  return fieldAt(
    value.find((item) => itemSegment(item, rule) === segment),
    rest,
    place,
  );
}

/** The set of one path. */
export function fieldsAlong(path: FieldPath): JsonObject {
  return path.reduceRight<JsonObject>((inner, segment) => ({ [segment]: inner }), {});
}

/** A path as kube-apiserver shows it: `.spec.ports[port=80,protocol="TCP"].name`. */
export function readablePath(path: FieldPath): string {
  return path
    .map((segment) => {
      const key = segment.slice(2);
      if (segment.startsWith('f:')) return `.${key}`;
      if (segment.startsWith('v:')) return `[=${key}]`;
      const keys = Object.entries(JSON.parse(key) as JsonObject);
      return `[${keys.map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(',')}]`;
    })
    .join('');
}

function fieldsUnder(value: Json, place: FieldPlace): JsonObject {
  if (isJsonObject(value)) return fieldsOf(value, place);
  const rule = isJsonArray(value) ? listMerge(place.resource, place.path) : undefined;
  if (rule === undefined || !isJsonArray(value)) return {};
  const items: Record<string, Json> = {};
  for (const item of value) {
    const segment = itemSegment(item, rule);
    const inner = isJsonObject(item) ? { '.': {}, ...fieldsOf(item, place) } : {};
    if (segment !== undefined) define(items, segment, inner);
  }
  return items;
}

function removeUnder(value: Json, fields: JsonObject, place: FieldPlace): Json | undefined {
  if (isJsonObject(value)) {
    const left = removeFields(value, fields, place);
    return isLeaf(left) ? undefined : left;
  }
  const rule = isJsonArray(value) ? listMerge(place.resource, place.path) : undefined;
  if (rule === undefined || !isJsonArray(value)) return value;
  const left = value.flatMap((item) => {
    const inner = fields[itemSegment(item, rule) ?? ''];
    if (!isJsonObject(inner)) return [item];
    if (isLeaf(inner) || inner['.'] !== undefined || !isJsonObject(item)) return [];
    return [removeFields(item, inner, place)];
  });
  return left.length === 0 ? undefined : left;
}

function mergeUnder(have: Json | undefined, applied: Json, place: FieldPlace): Json {
  if (isJsonObject(applied)) return mergeFields(isJsonObject(have) ? have : {}, applied, place);
  const rule = isJsonArray(applied) ? listMerge(place.resource, place.path) : undefined;
  if (rule === undefined || !isJsonArray(applied)) return applied;
  const before = new Map(
    (isJsonArray(have) ? have : []).map((item) => [itemSegment(item, rule), item]),
  );
  const merged = applied.map((item) => {
    const segment = itemSegment(item, rule);
    const old = before.get(segment);
    before.delete(segment);
    return isJsonObject(item) && isJsonObject(old) ? mergeFields(old, item, place) : item;
  });
  return [...merged, ...before.values()];
}

/** How an item is named in a set of fields; undefined for an item without its keys. */
function itemSegment(item: Json, rule: ListMerge): string | undefined {
  if (rule.key === undefined) return `v:${JSON.stringify(item)}`;
  if (!isJsonObject(item)) return undefined;
  const keys = rule.applyKeys.map(({ name, absent }) => [name, item[name] ?? absent] as const);
  if (keys.some(([, value]) => value === undefined)) return undefined;
  return `k:${JSON.stringify(Object.fromEntries(keys))}`;
}

function childPlace(place: FieldPlace, key: string): FieldPlace {
  return { ...place, path: place.path === '' ? key : `${place.path}.${key}` };
}

function isLeaf(fields: JsonObject): boolean {
  return Object.keys(fields).length === 0;
}
