/** JSON patch (RFC 6902) with JSON pointers (RFC 6901). */
import { ApiError, badRequest } from './api-error.ts';
import {
  define,
  isJsonArray,
  isJsonObject,
  sameJson,
  textAt,
  valueAt,
  without,
  type Json,
  type JsonObject,
} from './json.ts';

/**
 * Applies the operations in order, all or none.
 *
 * @throws {ApiError} BadRequest for a malformed patch, Invalid (422) where it does not fit the
 * document: a path that is not there, a failed test
 */
export function jsonPatch(document: Json, patch: Json): Json {
  if (!isJsonArray(patch)) throw badRequest('json patch: expected an array of operations');
  return patch.reduce((at: Json, step) => {
    if (!isJsonObject(step)) throw badRequest('json patch: expected every operation as an object');
    return applyStep(at, step);
  }, document);
}

function applyStep(document: Json, step: JsonObject): Json {
  const op = textAt(step, 'op');
  const path = parsePointer(valueAt(step, 'path'));
  switch (op) {
    case 'add':
      return add(document, path, operand(step));
    case 'remove':
      return remove(document, path);
    case 'replace':
      // Not remove then add: an array element must keep its place, and a missing one must fail.
      return edit(
        document,
        path,
        (parent, key) => {
          read(parent, [key]);
          return setMember(parent, key, operand(step));
        },
        () => operand(step),
      );
    case 'move': {
      const from = parsePointer(valueAt(step, 'from'));
      const value = read(document, from);
      return add(remove(document, from), path, value);
    }
    case 'copy':
      return add(document, path, read(document, parsePointer(valueAt(step, 'from'))));
    case 'test':
      if (!sameJson(read(document, path), operand(step))) {
        throw unprocessable(`testing value ${textAt(step, 'path')} failed`);
      }
      return document;
    default:
      throw badRequest(`json patch: unexpected operation ${JSON.stringify(op)}`);
  }
}

function operand(step: JsonObject): Json {
  const value = step['value'];
  if (value === undefined) throw badRequest(`json patch: ${textAt(step, 'op')} needs a value`);
  return value;
}

function parsePointer(pointer: Json | undefined): readonly string[] {
  if (typeof pointer !== 'string' || (pointer !== '' && !pointer.startsWith('/'))) {
    throw badRequest(`json patch: expected a JSON pointer, got ${JSON.stringify(pointer)}`);
  }
  const keys = pointer.split('/').slice(1);
  return keys.map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function read(document: Json, path: readonly string[]): Json {
  return path.reduce((at: Json, key) => {
    const value = isJsonArray(at) ? at[indexIn(at, key, at.length - 1)] : valueAt(at, key);
    if (value === undefined) throw missing(path);
    return value;
  }, document);
}

function add(document: Json, path: readonly string[], value: Json): Json {
  return edit(
    document,
    path,
    (parent, key) => {
      if (!isJsonArray(parent)) return setMember(parent, key, value);
      const index = key === '-' ? parent.length : indexIn(parent, key, parent.length);
      return parent.toSpliced(index, 0, value);
    },
    () => value,
  );
}

function remove(document: Json, path: readonly string[]): Json {
  return edit(
    document,
    path,
    (parent, key) => {
      read(parent, [key]);
      if (isJsonArray(parent)) return parent.toSpliced(Number(key), 1);
      return isJsonObject(parent) ? without(parent, key) : parent;
    },
    () => {
      throw unprocessable('cannot remove the whole document');
    },
  );
}

/** Copies the way down to `path` and lets `change` make the new parent of its last key. */
function edit(
  document: Json,
  path: readonly string[],
  change: (parent: Json, key: string) => Json,
  whole: () => Json,
): Json {
  const [key, ...rest] = path;
  if (key === undefined) return whole();
  if (rest.length === 0) {
    if (!isJsonObject(document) && !isJsonArray(document)) throw missing(path);
    return change(document, key);
  }
  return setMember(document, key, edit(read(document, [key]), rest, change, whole));
}

function setMember(parent: Json, key: string, value: Json): Json {
  if (isJsonArray(parent)) return parent.with(indexIn(parent, key, parent.length - 1), value);
  if (!isJsonObject(parent)) throw missing([key]);
  const copy = without(parent) as Record<string, Json>;
  define(copy, key, value);
  return copy;
}

function indexIn(array: readonly Json[], key: string, last: number): number {
  const index = /^(?:0|[1-9]\d*)$/.test(key) ? Number(key) : Number.NaN;
  if (!(index <= last)) {
    throw unprocessable(`invalid index ${JSON.stringify(key)} of an array of ${array.length}`);
  }
  return index;
}

function missing(path: readonly string[]): ApiError {
  return unprocessable(`path /${path.join('/')} does not exist`);
}

function unprocessable(message: string): ApiError {
  return new ApiError({
    httpCode: 422,
    reason: 'Invalid',
    message: `the server rejected our request due to an error in our request: json patch: ${message}`,
  });
}
