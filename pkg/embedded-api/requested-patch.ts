/** One patch request in any of the four formats the API has. */
import { ApiError, badRequest, unsupportedMediaType } from './api-error.ts';
import { isJsonObject, type Json, type JsonObject } from './json.ts';
import { resourceOf, type KindInfo } from './kinds.ts';
import type { KubeObject } from './object.ts';
import { jsonPatch } from './patch-json.ts';
import { mergePatch } from './patch-merge.ts';
import { strategicMergePatch } from './patch-strategic.ts';

export type PatchType = 'apply' | 'json' | 'merge' | 'strategic';

const byMediaType: Readonly<Record<string, PatchType>> = {
  'application/json-patch+json': 'json',
  'application/merge-patch+json': 'merge',
  'application/strategic-merge-patch+json': 'strategic',
  'application/apply-patch+yaml': 'apply',
};

/**
 * The patch format of a Content-Type.
 *
 * @throws {ApiError} UnsupportedMediaType
 */
export function patchTypeOf(mediaType: string): PatchType {
  const type = Object.hasOwn(byMediaType, mediaType) ? byMediaType[mediaType] : undefined;
  if (type === undefined) throw unsupportedMediaType(mediaType, Object.keys(byMediaType));
  return type;
}

/**
 * The object with a patch applied; the result is not yet checked in any way.
 *
 * @throws {ApiError} BadRequest, Invalid, UnsupportedMediaType
 */
export function patched(
  kind: KindInfo,
  object: KubeObject,
  type: Exclude<PatchType, 'apply'>,
  patch: Json,
): JsonObject {
  const result = patchedJson(kind, object, type, patch);
  if (!isJsonObject(result)) throw badRequest('the patch leaves no object');
  return result;
}

function patchedJson(
  kind: KindInfo,
  object: KubeObject,
  type: Exclude<PatchType, 'apply'>,
  patch: Json,
): Json {
  if (type === 'json') return jsonPatch(object, patch);
  if (!isJsonObject(patch)) throw badRequest('the patch is no object');
  if (type === 'merge') return mergePatch(object, patch);
  if (kind.custom) {
    // Their Go types are unknown, so there are no merge keys (kubectl falls back to merge patch).
    throw new ApiError({
      httpCode: 415,
      reason: 'UnsupportedMediaType',
      message:
        'the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml',
    });
  }
  return strategicMergePatch(object, patch, resourceOf(kind));
}
