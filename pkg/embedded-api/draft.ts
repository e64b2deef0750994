/** Bodies as objects of a kind, and objects as a version of their kind shows them. */
import { badRequest } from './api-error.ts';
import { dropNulls, isJsonObject, objectAt, textAt, type JsonObject } from './json.ts';
import { apiVersionOf, type KindInfo } from './kinds.ts';
import type { DraftObject, KubeObject } from './object.ts';

/**
 * A body as an object of `kind`: null fields dropped as Go does, apiVersion and kind checked or
 * filled in.
 *
 * @throws {ApiError} BadRequest
 */
export function readDraft(kind: KindInfo, draft: JsonObject): DraftObject {
  const clean = kind.custom ? draft : dropNulls(draft);
  if (!isJsonObject(clean)) throw badRequest('the body is no object');
  const apiVersion = textAt(clean, 'apiVersion') || apiVersionOf(kind);
  const kindName = textAt(clean, 'kind') || kind.kind;
  if (apiVersion !== apiVersionOf(kind) || kindName !== kind.kind) {
    throw badRequest(
      `the API version in the data (${apiVersion}, Kind=${kindName}) does not match the expected API version (${apiVersionOf(kind)}, Kind=${kind.kind})`,
    );
  }
  const metadata = dropNulls(objectAt(clean, 'metadata'));
  return { ...clean, apiVersion, kind: kindName, metadata: metadata as DraftObject['metadata'] };
}

/** An object as a version of its kind shows it: versions differ in name only (conversion None). */
export function asVersion(object: KubeObject, kind: KindInfo): KubeObject {
  const apiVersion = apiVersionOf(kind);
  return object.apiVersion === apiVersion ? object : { ...object, apiVersion };
}
